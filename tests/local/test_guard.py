"""The guard engine: what the host's own tree, processes and IPC must not become a way out of."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from pathlib import Path

import pytest

from claw_core.local import landlock, payload, plan
from claw_core.local.setup import Failure
from claw_core.model import Mount, Spec
from local.callers import Caller


def test_half_a_pair_of_datagram_sockets_reaches_no_socket_of_the_host(caller: Caller) -> None:
    path = caller.project / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        path.chmod(0o777)
        answers = caller.tried(
            "guard",
            f"socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].connect({str(path)!r})",
            f"socket.socketpair()[0].connect({str(path)!r})",
            "[end.close() for end in socket.socketpair()]",
            mounts=[[str(caller.project), str(caller.project), True]],
        )
        assert all("REFUSED" in answer for answer in answers[:2]), answers
        assert answers[2] == "[None, None]"
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.recv(1)


def test_shared_memory_of_the_host_is_out_of_reach(user: Caller) -> None:
    made = user.python_program(
        "import ctypes; libc = ctypes.CDLL(None); print(libc.shmget(0, 4096, 0o1600))"
    )
    segment = int(made)
    assert segment >= 0
    try:
        answers = user.tried(
            "guard", f"call(30, {segment}, 0, 0)", "call(29, 0, 4096, 0o1600)", "call(68, 1, 0)"
        )
        assert all("REFUSED PermissionError" in answer for answer in answers), answers
    finally:
        assert ctypes.CDLL(None).shmctl(segment, 0, None) == 0


def test_the_terminals_of_the_same_user_are_out_of_reach(user: Caller) -> None:
    ours, theirs = os.openpty()
    try:
        name = os.ttyname(theirs)
        os.chown(name, user.uid, user.uid)
        answers = user.tried(
            "guard",
            f"os.open({name!r}, os.O_RDWR | os.O_NOCTTY)",
            f"os.open({name!r}, os.O_WRONLY | os.O_NOCTTY)",
            "os.open('/dev/tty', os.O_RDWR)",
        )
        assert all("REFUSED" in answer for answer in answers), answers
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_descriptors_owner_cannot_become_somebody_else(user: Caller) -> None:
    answers = user.tried(
        "guard",
        "fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid())",
        "fcntl.ioctl(socket.socketpair()[0], 0x8901, struct.pack('i', os.getppid()))",
        "os.kill(os.getppid(), 0)",
        "os.kill(-1, 0)",
        "os.pidfd_open(os.getppid())",
    )
    assert all("REFUSED" in answer for answer in answers), answers


def test_replacing_a_mount_by_a_link_gains_nothing(user: Caller) -> None:
    private = user.base / "home" / "private"
    private.write_text("canary")
    os.chown(private, user.uid, user.uid)
    inner = user.project / "inner"
    inner.mkdir()
    os.chown(inner, user.uid, user.uid)
    reads = f"open({str(inner / 'private')!r}).read()", f"open({str(private)!r}, 'a')"
    result = user.attempt(
        "guard",
        f"os.rename({str(inner)!r}, {str(inner)!r} + '2')\n"
        f"os.symlink({str(private.parent)!r}, {str(inner)!r})",
        "".join(f"attempt({line!r})\n" for line in reads),
        mounts=[[str(user.project), str(user.project), True], [str(inner), str(inner), True]],
    )
    (first, _), (_, said) = result["answers"]
    assert first == 0, result
    assert said.count("REFUSED PermissionError") == 2, said


def test_read_only_inside_writable_is_refused_and_not_pretended(user: Caller) -> None:
    inner = user.write("inner/file", "text").parent
    result = user.attempt(
        "guard",
        "print('ran')",
        mounts=[[str(user.project), str(user.project), True], [str(inner), str(inner), False]],
    )
    assert result["level"] == "refused"
    assert "read-only inside the writable" in result["answers"][0][1]


def test_what_the_sandboxs_user_could_not_reach_is_refused(root: Caller) -> None:
    hidden = root.base / "home" / "open"
    hidden.mkdir(mode=0o777)
    result = root.attempt("guard", "print('ran')", mounts=[[str(hidden), str(hidden), False]])
    assert result["level"] == "refused"
    assert "could not read" in result["answers"][0][1]


def test_attributes_outside_can_be_changed_only_where_the_user_owns_them(caller: Caller) -> None:
    private = caller.base / "home" / "private"
    private.write_text("canary")
    private.chmod(0o600)
    os.chown(private, caller.uid, caller.uid)
    (answer,) = caller.tried("guard", f"os.chmod({str(private)!r}, 0o640)")
    # An ordinary user's files are within reach of chmod: `fs` is `partial`, and the docs say so.
    assert ("REFUSED" in answer) == (caller.uid == 0)
    (answer,) = caller.tried("guard", "os.chmod('/etc/hostname', 0o666)")
    assert "REFUSED" in answer


def test_no_landlock_is_no_guard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    setup = plan.make_setup("claw-probe-1", Spec(), "guard", env={})
    with pytest.raises(Failure, match="Landlock"):
        payload.Confinement(setup)


def test_a_mount_that_became_a_link_is_refused(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    setup = plan.make_setup(
        "claw-probe-1", Spec(mounts=(Mount(mount, str(mount)),)), "guard", env={}
    )
    mount.rename(tmp_path / "moved")
    mount.symlink_to("/etc")
    with pytest.raises(Failure, match="symlink"):
        payload.Confinement(setup._replace(scratch="/"))


def test_memory_is_bounded_by_process_where_there_are_no_control_groups(user: Caller) -> None:
    result = user.attempt(
        "guard", "attempt('len(bytearray(300 << 20))')", resources={"memory": 128 << 20}
    )
    assert "REFUSED MemoryError" in result["answers"][0][1]
    assert any("per process" in notice for notice in result["notices"])


def test_other_processes_of_the_user_do_not_use_up_the_limit(user: Caller) -> None:
    others = [user.popen("sleep", "60") for _ in range(12)]
    try:
        result = user.attempt(
            "guard", "print(subprocess.run(['true']).returncode)", resources={"processes": 8}
        )
        assert result["answers"] == [[0, "0\n"]]
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_a_payload_finds_what_it_needs(caller: Caller) -> None:
    answers = caller.tried(
        "guard",
        "open(os.environ['HOME'] + '/x', 'w').write('x')",
        "open('/dev/null', 'w').write('x')",
        "subprocess.run(['true']).returncode",
        "os.environ['TMPDIR'] == os.environ['HOME']",
    )
    assert answers == ["1", "1", "0", "True"]
    assert subprocess.run(["true"], check=False).returncode == 0
