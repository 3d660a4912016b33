"""The runtime through the installed `claw`: what the contract promises, seen from outside."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DAEMONS = """
trap '' TERM HUP INT
for _ in 1 2 3 4 5; do (setsid sh -c 'trap "" TERM HUP INT; sleep 600; : MARK' &); done
echo ready; sleep 600; : MARK
"""
"""Processes that ignore every polite request, most of them in sessions of their own."""

API = """
import asyncio, os, sys, time
import claw_core
from claw_core.model import Signal

def alive(marker):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if marker.encode() in file.read() and int(pid) != os.getpid():
                    found.append(pid)
        except OSError:
            pass
    return found

async def main():
    async with claw_core.Router.open() as router:
        async with router.session(runtime="bubblewrap") as session:
            await check(session)
        assert session.record.teardown == "gone"
"""

Claw = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def claw(environment: Path) -> Claw:
    def run(*args: str, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [environment / "claw", *args],
            input=stdin,
            capture_output=True,
            env={**os.environ, **env},
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def script(environment: Path) -> Callable[[str, str], None]:
    """Runs a coroutine `check(session)` in the fresh environment."""

    def run(source: str, marker: str = "") -> None:
        program = f"{API}\n{source}\nasyncio.run(main())"
        subprocess.run([environment / "python", "-c", program, marker], check=True, timeout=60)

    return run


def start(environment: Path, *args: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [environment / "claw", "run", "-r", "bubblewrap", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def marked(marker: str) -> list[str]:
    """Command lines of processes that contain the marker."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if marker in text:
                found.append(text)
    return found


def test_it_is_found_tried_and_described(claw: Claw) -> None:
    rows = {row["name"]: row for row in json.loads(claw("runtimes", "--json").stdout)}
    row = rows["bubblewrap"]
    assert row["available"]
    assert row["from"] == "claw-runtime-bubblewrap 0.1.0"
    assert row["isolation"] == "sandbox"
    assert row["version"].startswith("0.")
    assert row["axes"]["kill"] == "full"
    assert row["axes"]["limits"] == "none"


@pytest.mark.parametrize(
    ("hidden", "reason"),
    [
        (["--ro-bind", "/dev/null", "/usr/bin/bwrap"], "cannot be run"),
        (["--unshare-user", "--disable-userns"], "namespace"),
    ],
)
def test_where_it_cannot_work_it_says_so(environment: Path, hidden: list[str], reason: str) -> None:
    shell = ["bwrap", "--dev-bind", "/", "/", *hidden, "--", str(environment / "claw")]
    done = subprocess.run([*shell, "runtimes", "--json"], capture_output=True, check=True)
    row = next(row for row in json.loads(done.stdout) if row["name"] == "bubblewrap")
    assert not row["available"]
    assert reason in row["reason"]
    assert "install bubblewrap" in row["remedy"]


def test_exit_codes_are_the_commands_own(script: Callable[..., None]) -> None:
    source = """
CASES = [
    (["sh", "-c", "exit 3"], 3),
    (["sh", "-c", "kill -9 $$"], 137),
    (["no-such-program"], 127),
    (["/usr"], 126),
    (["sh", "-c", "echo 'bwrap: execvp x: No such file or directory' >&2; exit 1"], 1),
]
async def check(session):
    for command, code in CASES:
        ended = await session.run(command)
        assert ended.code == code, (command, ended)
        assert bool(ended.reason) == (code in (126, 127))
    try:
        await session.run(["true"], workdir="/nowhere")
    except claw_core.ClawError as error:
        assert "/nowhere" in error.message
        assert error.remedy
    else:
        raise AssertionError
"""
    script(source)


def test_the_exit_code_of_claw_is_the_commands(claw: Claw) -> None:
    done = claw("run", "-r", "bubblewrap", "--", "no-such-program")
    assert done.returncode == 127
    assert b"claw: no-such-program: cannot be executed" in done.stderr


def test_streams_pass_through_byte_for_byte(claw: Claw) -> None:
    data = random.randbytes(3_000_000)
    done = claw("run", "-r", "bubblewrap", "--", "tee", "/dev/stderr", stdin=data)
    assert done.returncode == 0
    assert done.stdout == data
    assert done.stderr == data


def test_a_command_that_does_not_read_is_not_waited_for(environment: Path) -> None:
    reading, writing = os.pipe()
    argv = [str(environment / "claw"), "run", "-r", "bubblewrap", "--", "true"]
    try:
        assert subprocess.run(argv, stdin=reading, timeout=60, check=False).returncode == 0
    finally:
        os.close(reading)
        os.close(writing)


def test_it_sees_its_mounts_and_nothing_else_of_the_host(claw: Claw, tmp_path: Path) -> None:
    for name in ("seen", "changed", "secret"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    look = (
        f"cat /mnt/seen/file; echo more >> /mnt/changed/file; echo x >> /mnt/seen/file;"
        f"ls {tmp_path}/secret; touch /x; ls -A /home; ls -A / | tr '\\n' ' '"
    )
    mounts = ["--mount", f"{tmp_path}/seen:/mnt/seen"]
    mounts += ["--mount", f"{tmp_path}/changed:/mnt/changed:rw"]
    done = claw("run", "-r", "bubblewrap", *mounts, "--", "sh", "-c", look)
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "seenagent"
    assert set(lines[1].split()) <= {
        *("bin", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32"),
        *("mnt", "proc", "run", "sbin", "tmp", "usr", "workspace"),
    }
    assert done.stderr.count(b"Read-only file system") == 2
    assert (tmp_path / "seen" / "file").read_text() == "seen"
    assert (tmp_path / "changed" / "file").read_text() == "changedmore\n"


@pytest.mark.parametrize("network", ["none", "default"])
def test_the_network_is_the_hosts_only_when_asked_for(claw: Claw, network: str) -> None:
    look = ("--network", network, "--", "readlink", "/proc/self/ns/net")
    seen = claw("run", "-r", "bubblewrap", *look).stdout.decode().strip()
    assert seen.startswith("net:")
    assert (seen == os.readlink("/proc/self/ns/net")) == (network == "default")


def test_it_has_no_capabilities_and_no_way_to_get_any(claw: Claw) -> None:
    look = "grep CapBnd /proc/self/status; unshare -U true; unshare -m true; ps ax | wc -l"
    done = claw("run", "-r", "bubblewrap", "--", "sh", "-c", look)
    bounding, processes = done.stdout.decode().splitlines()
    assert int(bounding.split()[1], 16) == 0
    assert int(processes) < 10
    assert done.stderr.count(b"unshare failed") == 2


def test_a_secret_is_in_no_argument(environment: Path, state: Path) -> None:
    secret = uuid.uuid4().hex
    command = ["--secret", "KEY", "-e", "LD_PRELOAD=/x.so", "--"]
    command += ["sh", "-c", "echo $KEY $LD_PRELOAD; sleep 600"]
    with start(environment, *command, env={**os.environ, "KEY": secret}) as process:
        assert process.stdout is not None
        assert process.stdout.readline().decode() == f"{secret} /x.so\n"
        assert not marked(secret)
        name = next(text.split("\0")[2] for text in marked("bwrap\0--bind\0"))
        assert secret not in name
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # it has ended meanwhile, or is no process
                if (entry / "cmdline").read_bytes().startswith(b"bwrap\0"):
                    assert b"LD_PRELOAD" not in (entry / "environ").read_bytes()
        for path in state.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes()
        process.terminate()
        process.communicate(timeout=20)


def test_nothing_is_left_after_a_kill_of_claw(environment: Path, claw: Claw, state: Path) -> None:
    """At random moments, half of them in the first milliseconds of the instance."""
    for number in range(3):
        marker = uuid.uuid4().hex
        with start(environment, "--", "sh", "-c", DAEMONS.replace("MARK", marker)) as process:
            if number == 0:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
            else:
                instances = state / "instances"
                while not (instances.exists() and os.listdir(instances)):
                    assert process.poll() is None
                time.sleep(random.uniform(0, 0.05))
            process.kill()
            process.communicate()
        # Its warden may be at work on it as well, and then `claw reap` says that it is busy.
        until = time.monotonic() + 30
        while claw("reap").returncode or os.listdir(state / "instances"):
            assert time.monotonic() < until
        assert not marked(marker)


def test_a_deadline_ends_the_whole_tree(claw: Claw) -> None:
    marker = uuid.uuid4().hex
    command = ["--timeout", "1", "--", "sh", "-c", DAEMONS.replace("MARK", marker)]
    done = claw("run", "-r", "bubblewrap", *command)
    assert done.returncode == 124
    assert done.stdout == b"ready\n"
    assert not marked(marker)


def test_files_go_in_and_out(claw: Claw, tmp_path: Path) -> None:
    source = tmp_path / "project"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "input").write_bytes(b"\0\xff")
    program = "cp deep/input output; chmod 750 output; ln -s output link"
    done = claw(
        *("run", "-r", "bubblewrap", "--upload", f"{source}:/tmp/project", "-w", "/tmp/project"),
        *("--download", f"/tmp/project:{tmp_path}/result", "--", "sh", "-c", program),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "result" / "output").read_bytes() == b"\0\xff"
    assert (tmp_path / "result" / "output").stat().st_mode & 0o777 == 0o750
    assert os.readlink(tmp_path / "result" / "link") == "output"


def test_a_directory_that_resists_is_removed(claw: Claw) -> None:
    program = (
        "mkdir -p locked/inside; touch locked/inside/file; chmod 0 locked/inside locked;"
        "deep=$(seq -s / 1000); mkdir -p $deep && cd $deep && mkdir -p $deep"
    )
    done = claw("run", "-r", "bubblewrap", "-w", "/tmp", "--", "sh", "-c", program)
    assert done.returncode == 0, done.stderr


def test_a_cancelled_command_is_gone_and_the_next_one_works(script: Callable[..., None]) -> None:
    source = """
async def check(session):
    ready = asyncio.Event()
    async def sink(chunk):
        ready.set()
    task = asyncio.create_task(session.run(["sh", "-c", sys.argv[1]], stdout=sink))
    await asyncio.wait_for(ready.wait(), 20)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    assert not alive(sys.argv[1].split()[-1])
    await session.run(["sh", "-c", "echo kept > /tmp/file"])
    assert (await session.run(["grep", "-q", "kept", "/tmp/file"])).code == 0
"""
    script(source, DAEMONS.replace("MARK", uuid.uuid4().hex))


def test_a_slow_reader_slows_the_command(script: Callable[..., None], tmp_path: Path) -> None:
    done = tmp_path / "share"
    done.mkdir()
    source = f"""
from pathlib import Path
async def main():
    mount = claw_core.Mount(Path({str(done)!r}), "/mnt", writable=True, authorised=True)
    async with claw_core.Router.open() as router:
        async with router.session(runtime="bubblewrap", mounts=[mount]) as session:
            amount, first = 0, asyncio.Event()
            go = asyncio.Event()
            async def sink(chunk):
                nonlocal amount
                amount += len(chunk)
                first.set()
                await go.wait()
            program = "head -c 20000000 /dev/zero; touch /mnt/written"
            task = asyncio.create_task(session.run(["sh", "-c", program], stdout=sink))
            await asyncio.wait_for(first.wait(), 20)
            await asyncio.wait([task], timeout=0.5)
            assert not Path({str(done)!r}, "written").exists()
            go.set()
            assert (await task).code == 0
            assert amount == 20000000
"""
    script(source)
    assert (done / "written").exists()


def test_a_signal_reaches_the_command(script: Callable[..., None]) -> None:
    source = """
async def check(session):
    ready = asyncio.Event()
    async def sink(chunk):
        ready.set()
    async def control():
        await ready.wait()
        yield Signal(15)
    program = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"
    ended = await session.run(["sh", "-c", program], stdout=sink, control=control())
    assert ended.code == 9, ended
"""
    script(source)


def test_the_warden_finds_it_wherever_the_next_environment_points(
    environment: Path, claw: Claw, state: Path, tmp_path: Path
) -> None:
    marker = uuid.uuid4().hex
    with start(environment, "--", "sh", "-c", DAEMONS.replace("MARK", marker)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    text = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if str(state).encode() in text and b"waiter" in text:
                    os.kill(int(entry.name), signal.SIGKILL)
        process.kill()
        process.communicate()
    (tmp_path / "elsewhere").mkdir()
    done = claw("reap", "--json", XDG_CACHE_HOME=str(tmp_path / "elsewhere"))
    assert [row["result"] for row in json.loads(done.stdout)] == ["gone"]
    assert not marked(marker)
