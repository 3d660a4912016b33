"""The file tree, the processes and the network that a command sees in a sandbox."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from claw_core.errors import ClawError
from claw_core.model import Exit, Mount, Refusal, Resources, Spec
from local import support
from local.support import mounts, run, session


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "inner").mkdir(parents=True)
    (folder / "file").write_text("content")
    (folder / "inner" / "deep").write_text("deep")
    return folder


def said(spec: Spec | None, *argv: str) -> tuple[Exit, str]:
    async def main() -> tuple[Exit, str]:
        async with session(spec=spec) as there:
            return await there.run(*argv)

    return run(main())


def test_nothing_of_the_old_root_is_left() -> None:
    _, text = said(None, "cat", "/proc/self/mountinfo")
    points = [line.split()[4] for line in text.splitlines()]
    assert points.count("/") == 1
    system = ("/usr", "/bin", "/sbin", "/lib", "/etc", "/dev", "/proc", "/nix", "/gnu")
    places = ("/tmp", "/var/tmp", "/run", "/home/agent", "/workspace")
    prefixes = {os.path.realpath(one) for one in (sys.prefix, sys.base_prefix)}
    for point in set(points) - {"/"}:
        assert point.startswith((*system, *places)) or point in prefixes, point
    for line in text.splitlines():
        options, point = line.split()[5].split(","), line.split()[4]
        assert "nosuid" in options, line
        assert "nodev" in options or point.startswith("/dev/"), line
        writable = point.startswith((*places, "/dev/", "/proc")) or point == "/dev/pts"
        assert "ro" in options or writable, line


def test_there_are_only_the_usual_directories() -> None:
    _, text = said(None, "ls", "-A", "/")
    known = "bin dev etc gnu home lib lib32 lib64 libx32 nix opt proc root run sbin tmp usr var"
    assert set(text.split()) <= {*known.split(), "workspace", Path(sys.prefix).parts[1]}


def test_the_places_that_programs_write_to_are_writable() -> None:
    program = (
        "import os, tempfile\n"
        "for place in ('/tmp', '/var/tmp', '/run', '/dev/shm', '/workspace', os.environ['HOME']):\n"
        "    with tempfile.NamedTemporaryFile(dir=place): pass\n"
        "import pty, multiprocessing\n"
        "pty.openpty(); multiprocessing.Lock()\n"
        "for name in ('null', 'zero', 'full', 'random', 'urandom', 'stdin', 'fd/0'):\n"
        "    os.stat('/dev/' + name)\n"
        "print(os.getcwd(), os.path.expanduser('~'), __import__('getpass').getuser())\n"
    )
    ended, text = said(None, "python3", "-c", program)
    assert (ended, text) == (Exit(0), "/workspace /home/agent agent\n")


def test_the_root_and_the_kernels_switches_cannot_be_written() -> None:
    for path in (
        "/new",
        "/etc/new",
        "/usr/new",
        "/dev/new",
        "/home/new",
        "/proc/sys/vm/swappiness",
    ):
        ended, _ = said(None, "sh", "-c", f"echo 1 > {path}")
        assert ended.code != 0, path


def test_proc_shows_only_the_sandbox_and_is_masked() -> None:
    program = (
        "import os\n"
        "print(sorted(int(n) for n in os.listdir('/proc') if n.isdigit())[0])\n"
        "print(len([n for n in os.listdir('/proc') if n.isdigit()]) < 6)\n"
        "for name in ('kcore', 'keys', 'timer_list', 'kallsyms'):\n"
        "    try: print(open('/proc/' + name, 'rb').read(10))\n"
        "    except OSError: pass\n"
        "for name in ('environ', 'mem', 'maps'):\n"
        "    try: print('READ', name, open('/proc/1/' + name, 'rb').read(1))\n"
        "    except OSError: pass\n"
    )
    _, text = said(None, "python3", "-c", program)
    lines = text.splitlines()
    assert lines[:2] == ["1", "True"]
    assert set(lines[2:]) <= {"b''"}


def test_the_first_process_has_no_environment_and_no_descriptor_but_its_lifeline() -> None:
    async def main() -> None:
        async with session(spec=Spec(env={"CANARY": "x"})) as there:
            firsts = [
                pid
                for pid in support.marked(there.instance.name)
                if f"\nNSpid:\t{pid}\t1\n" in Path(f"/proc/{pid}/status").read_text()
            ]
            assert len(firsts) == 1
            assert Path(f"/proc/{firsts[0]}/environ").read_bytes() == b""
            links = os.listdir(f"/proc/{firsts[0]}/fd")
            targets = sorted(os.readlink(f"/proc/{firsts[0]}/fd/{one}") for one in links)
            kinds = [target.split(":")[0] for target in targets]
            assert kinds.count("socket") == 1
            assert set(kinds) <= {"socket", "pipe", "/dev/null", "anon_inode"}, targets
            assert kinds.count("pipe") in {0, 2}  # its alarm clock for children, made after ready
            others = set(support.marked(there.instance.name)) - set(firsts)
            for pid in others:
                assert os.listdir(f"/proc/{pid}/fd") == []

    if os.geteuid() != 0:
        pytest.skip("only root may look into such processes")
    run(main())


def test_mounts_are_read_only_unless_asked_otherwise(project: Path) -> None:
    spec = mounts(
        Mount(project, "/mnt/read"),
        Mount(project / "inner", "/mnt/write", writable=True),
        Mount(project / "file", "/mnt/one file"),
    )

    async def main() -> None:
        async with session(spec=spec) as there:
            assert await there.run("cat", "/mnt/read/file") == (Exit(0), "content")
            assert await there.run("cat", "/mnt/one file") == (Exit(0), "content")
            assert await there.run("pwd") == (Exit(0), "/mnt/read\n")
            for target in ("/mnt/read/new", "/mnt/read/inner/new", "/mnt/one file"):
                ended, _ = await there.run("sh", "-c", f"echo x >> '{target}'")
                assert ended.code, target
            ended, _ = await there.run("sh", "-c", "echo x > /mnt/write/new")
            assert ended == Exit(0)

    run(main())
    assert (project / "inner" / "new").read_text() == "x\n"
    assert (project / "inner" / "new").stat().st_uid == os.geteuid()
    assert (project / "file").read_text() == "content"


def test_mounts_nest_in_their_order(project: Path) -> None:
    spec = mounts(
        Mount(project, "/mnt/p", writable=True),
        Mount(project / "file", "/mnt/p/inner/deep"),
        Mount(project / "inner", "/mnt/other"),
    )

    async def main() -> None:
        async with session(spec=spec) as there:
            assert await there.run("cat", "/mnt/p/inner/deep") == (Exit(0), "content")
            assert (await there.run("sh", "-c", "echo x > /mnt/p/inner/deep"))[0].code
            assert (await there.run("rm", "/mnt/p/inner/deep"))[0].code
            assert await there.run("cat", "/mnt/other/deep") == (Exit(0), "deep")
            assert (await there.run("touch", "/mnt/p/inner/made"))[0] == Exit(0)

    run(main())
    assert (project / "inner" / "deep").read_text() == "deep"


@pytest.mark.parametrize("place", ["link/new", "inner/new", "file/new", "inner/deep/new"])
def test_a_place_inside_a_mount_is_never_created(project: Path, place: str) -> None:
    outside = project.parent / "outside"
    outside.mkdir()
    (project / "link").symlink_to(outside)
    spec = mounts(
        Mount(project, "/mnt/p", writable=True), Mount(project / "inner", f"/mnt/p/{place}")
    )

    async def main() -> None:
        with pytest.raises(ClawError, match="no such place"):
            async with session(spec=spec):
                pass

    run(main())
    assert os.listdir(outside) == []
    assert sorted(os.listdir(project / "inner")) == ["deep"]


@pytest.mark.parametrize("target", ["/", "/..", "/a/../../etc", "relative", "/proc", "/dev/null"])
def test_impossible_places_are_refused(project: Path, target: str) -> None:
    async def main() -> None:
        assessment = await support.runtime().assess(mounts(Mount(project, target)))
        assert isinstance(assessment, Refusal)

    run(main())


@pytest.mark.parametrize("engine", support.ENGINES)
def test_a_source_that_has_become_a_symlink_is_not_followed(project: Path, engine: str) -> None:
    secret = project.parent / "secret"
    secret.mkdir()
    (secret / "file").write_text("canary")
    project.chmod(0o755)
    target = "/mnt/p" if engine == "namespaces" else str(project)

    async def main() -> None:
        backend = support.runtime(engine)
        subject = support.instance(mounts(Mount(project, target)))
        await backend.prepare(subject)
        project.rename(project.parent / "aside")
        project.symlink_to(secret)
        with pytest.raises(ClawError, match="symlink"):
            await backend.start(subject)
        await backend.teardown(subject)

    run(main())


def test_a_nested_mount_of_a_read_only_source_is_read_only_as_well(project: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("making a mount on the host takes root")
    inner = project / "inner"
    subprocess.run(["mount", "-t", "tmpfs", "claw-test", inner], check=True)
    try:
        (inner / "there").write_text("there")
        spec = mounts(Mount(project, "/mnt/p"))

        async def main() -> None:
            async with session(spec=spec) as there:
                assert await there.run("cat", "/mnt/p/inner/there") == (Exit(0), "there")
                assert (await there.run("touch", "/mnt/p/inner/new"))[0].code

        run(main())
    finally:
        subprocess.run(["umount", inner], check=True)


def test_what_root_mounts_read_only_needs_no_idmapped_mounts_if_everybody_may_read_it() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root needs idmapped mounts")
    # The kernel has no idmapped mounts of /proc, or of sysfs.
    ended, text = said(mounts(Mount(Path("/sys/kernel"), "/mnt/k")), "cat", "/mnt/k/fscaps")
    assert (ended, text) == (Exit(0), "1\n")

    async def main() -> None:
        with pytest.raises(ClawError, match="idmapped") as caught:
            async with session(spec=mounts(Mount(Path("/sys/kernel"), "/mnt/k", writable=True))):
                pass
        assert caught.value.remedy

    run(main())


def test_the_interpreter_that_runs_claw_is_there() -> None:
    ended, text = said(None, "python3", "-c", "import sys, ssl, sqlite3; print(sys.prefix)")
    assert ended == Exit(0)
    assert text.strip() in {sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix)}
    ended, _ = said(None, sys.executable, "-c", "import encodings")
    assert ended == Exit(0)


def test_without_a_network_there_is_a_loopback_of_its_own() -> None:
    program = (
        "import socket, sys\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(server.getsockname()).close()\n"
        "try: socket.create_connection(('127.0.0.1', int(sys.argv[1])), 1)\n"
        "except OSError as error: print(type(error).__name__)\n"
        "try: socket.create_connection(('192.0.2.1', 80), 1)\n"
        "except OSError as error: print(error.strerror)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        _, text = said(None, "python3", "-c", program, str(server.getsockname()[1]))
    assert text == "ConnectionRefusedError\nNetwork is unreachable\n"


@pytest.mark.parametrize("engine", support.ENGINES)
def test_the_default_network_is_the_hosts(engine: str) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            async with session(engine, Spec(network="default")) as there:
                port = server.getsockname()[1]
                program = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
                assert await there.python(program) == (Exit(0), "")

    run(main())


def test_the_size_of_all_writable_places_together_is_bounded() -> None:
    async def main() -> None:
        async with session(spec=Spec(resources=Resources(memory=64 << 20))) as there:
            program = (
                "import os\n"
                "for place in '/tmp /run /dev/shm /workspace /home/agent /var/tmp'.split():\n"
                "    size = os.statvfs(place)\n"
                "    print(size.f_blocks * size.f_frsize)\n"
            )
            _, text = await there.python(program)
            assert set(text.split()) == {str(64 << 20)}
            fill = "head -c 40M /dev/zero > /tmp/a; head -c 40M /dev/zero > /dev/shm/b"
            assert (await there.run("sh", "-c", fill))[0].code

    run(main())


@pytest.mark.parametrize("engine", support.ENGINES)
def test_when_memory_runs_out_the_command_dies_and_the_instance_lives(engine: str) -> None:
    async def main() -> None:
        async with session(engine, Spec(resources=Resources(memory=100 << 20))) as there:
            ended, _ = await there.python("print(len(b'x' * (300 << 20)))")
            assert ended.code in {1, 137}
            assert await there.run("echo", "alive") == (Exit(0), "alive\n")

    run(main())


def test_files_of_the_mount_keep_no_set_id_bits(project: Path) -> None:
    async def main() -> None:
        async with session(spec=mounts(Mount(project, "/mnt/p", writable=True))) as there:
            for command in ("chmod 4755 file", "chmod g+s inner", "cp -p /usr/bin/passwd new"):
                await there.run("sh", "-c", command)

    run(main())
    for path in project.rglob("*"):
        assert not path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID), path
