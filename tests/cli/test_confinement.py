"""What the sandbox must stop is tried: as root, as an ordinary user, in both engines."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import claw_core

PROBE = """
import asyncio, json, sys
import claw_core
from claw_core.model import Mount, Resources
from pathlib import Path

async def main():
    asked = json.loads(sys.argv[1])
    out = claw_core.Capture()
    settings = claw_core.Settings(runtimes={"local": {"engine": asked["engine"]}})
    config = claw_core.Config.of(settings)
    async with claw_core.Router.open(config=config) as router:
        async with router.session(
            runtime="local", network=asked["network"],
            mounts=[Mount(Path(p), p, writable=w, authorised=True) for p, w in asked["mounts"]],
            resources=Resources(memory=asked["memory"], processes=asked["processes"]),
        ) as session:
            ended = await session.run(["python3", "-c", asked["program"]], stdout=out, stderr=out)
    print(json.dumps({"code": ended.code, "said": out.data.decode(errors="replace"),
                      "level": session.route.assessment.isolation.label,
                      "axes": session.route.assessment.axes.to_json()}))

asyncio.run(main())
"""

DEFAULTS: dict[str, object] = {
    "network": "none",
    "mounts": [],
    "memory": None,
    "processes": None,
}


class Caller:
    """Somebody who runs claw: root as the tests are, or an ordinary user with a HOME of his own."""

    def __init__(self, uid: int, base: Path, python: str, path: str) -> None:
        self.uid = uid
        self.base = base
        self.python = python
        self.env = {
            "HOME": str(base / "home"),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": path,
            "CLAW_STATE": str(base / "state"),
            "CALLERS_SECRET": "canary-environment",
        }

    def popen(self, *argv: str, **options: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # type: ignore[call-overload, no-any-return] # options vary
            argv,
            user=self.uid,
            group=self.uid,
            extra_groups=[],
            env=self.env,
            cwd=self.base,
            **options,
        )

    def attempt(self, engine: str, program: str, **asked: object) -> dict[str, object]:
        """Run a Python program in a sandbox and return what came of it."""
        wish = {**DEFAULTS, "engine": engine, "program": program, **asked}
        with self.popen(
            *(self.python, "-c", PROBE, json.dumps(wish)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err.decode()
        result: dict[str, object] = json.loads(out)
        return result


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What claw needs, in a place where everybody can read it."""
    place = Path("/var/tmp") / f"claw-confinement-{os.getpid()}"
    place.mkdir(mode=0o755)
    source = Path(claw_core.__file__).parent
    site = Path(sysconfig.get_path("purelib"))
    shutil.copytree(source, place / "claw_core", ignore=shutil.ignore_patterns("__pycache__"))
    for package in ("attr", "attrs", "pluggy", "click"):
        shutil.copytree(site / package, place / package)
    for folder, _, files in os.walk(place):
        os.chmod(folder, 0o755)
        for name in files:
            os.chmod(os.path.join(folder, name), 0o644)
    yield place
    shutil.rmtree(place)


@pytest.fixture(params=["root", "user"])
def caller(request: pytest.FixtureRequest, installed: Path, tmp_path: Path) -> Iterator[Caller]:
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    uid = 0 if request.param == "root" else 1000
    base = Path("/var/tmp") / f"claw-caller-{os.getpid()}-{time.monotonic_ns()}"
    for folder in (base, base / "home", base / "state", base / "project"):
        folder.mkdir(mode=0o700)
        os.chown(folder, uid, uid)
    private = base / "home" / "private"
    private.write_text("canary-home")
    private.chmod(0o600)
    os.chown(private, uid, uid)
    python = sys.executable if uid == 0 else "/usr/bin/python3"
    yield Caller(uid, base, python, str(installed))
    shutil.rmtree(base)


@pytest.fixture(params=["namespaces", "guard"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tried(*lines: str) -> str:
    """A program that tries each expression and prints what it gives, or the error."""
    body = "".join(
        f"try: print({number}, repr({line}))\n"
        f"except Exception as error: print({number}, 'REFUSED', type(error).__name__, error)\n"
        for number, line in enumerate(lines)
    )
    return (
        "import os, socket, ctypes, signal, sys, fcntl, resource, subprocess, stat\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def call(*args):\n"
        "    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]\n"
        "    result = libc.syscall(*words)\n"
        "    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))\n"
        "    return result\n" + body
    )


def refused(result: dict[str, object], count: int) -> None:
    """Assert that every one of the attempts was refused."""
    lines = [line for line in str(result["said"]).splitlines() if line[:1].isdigit()]
    assert len(lines) == count, result
    assert all(" REFUSED " in line for line in lines), result


def test_the_level_is_said(caller: Caller, engine: str) -> None:
    result = caller.attempt(engine, "print('hello')")
    assert result["said"] == "hello\n"
    assert result["level"] == {"namespaces": "sandbox", "guard": "guard"}[engine]


def test_the_callers_files_cannot_be_read(caller: Caller, engine: str) -> None:
    lines = [
        f"open({str(caller.base / 'home' / 'private')!r}).read()",
        f"os.listdir({str(caller.base / 'home')!r})",
        f"os.listdir({str(caller.base / 'state')!r})",
        "open('/etc/shadow').read()",
        "open('/etc/gshadow').read()",
        "os.listdir('/root')",
        "open('/var/lib/dpkg/status').read()",
        "os.listdir('/proc/1/root/etc/ssh')",
        "open('/proc/1/environ').read() or 1/0",
    ]
    result = caller.attempt(engine, tried(*lines))
    assert "canary" not in str(result["said"])
    said = [line for line in str(result["said"]).splitlines() if " REFUSED " not in line]
    # /root exists in the tree of a sandbox when the interpreter lives below it.
    assert all(line.startswith("5 ['.pyenv") or line == "5 []" for line in said), result


def test_the_environment_of_other_processes_cannot_be_read(caller: Caller, engine: str) -> None:
    program = (
        "import os\n"
        "for pid in os.listdir('/proc'):\n"
        "    try: data = open(f'/proc/{pid}/environ', 'rb').read()\n"
        "    except OSError: continue\n"
        "    if b'canary-environment' in data: print('LEAKED', pid)\n"
        "print('done')\n"
    )
    assert caller.attempt(engine, program)["said"] == "done\n"


def test_sockets_of_the_host_cannot_be_reached(caller: Caller, engine: str) -> None:
    path = f"/run/claw-test-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp:
        unix.bind(path)
        unix.listen()
        os.chmod(path, 0o777)
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind(f"\0claw-test-{os.getpid()}")
        abstract.listen()
        port = tcp.getsockname()[1]
        try:
            lines = [
                f"socket.socket(socket.AF_UNIX).connect({path!r})",
                f"socket.socket(socket.AF_UNIX).connect({chr(0) + f'claw-test-{os.getpid()}'!r})",
                f"socket.create_connection(('127.0.0.1', {port}), 2)",
                "socket.create_connection(('192.0.2.1', 80), 2)",
                "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
                "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
                "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
                "socket.socket(40, socket.SOCK_STREAM)",
            ]
            refused(caller.attempt(engine, tried(*lines)), len(lines))
        finally:
            abstract.close()
            os.unlink(path)


def test_nothing_outside_the_mounts_can_be_written(caller: Caller, engine: str) -> None:
    project = caller.base / "project"
    lines = [
        f"open({str(caller.base / 'home' / 'new')!r}, 'w')",
        f"os.rename({str(project)!r}, {str(caller.base / 'moved')!r})",
        "open('/usr/new', 'w')",
        "open('/etc/passwd', 'a')",
        "open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/false')",
        "open('/proc/sysrq-trigger', 'w').write('h')",
        "open('/proc/sys/vm/drop_caches', 'w').write('1')",
        "os.mkdir('/new')",
        "os.link('/usr/bin/python3', '/usr/bin/python3-copy')",
    ]
    result = caller.attempt(
        engine, tried(*lines), mounts=[[str(project), True]] if caller.uid else []
    )
    refused(result, len(lines))
    assert project.is_dir()
    assert sorted(os.listdir(caller.base)) == ["home", "project", "state"]


def test_no_setuid_file_can_be_left_in_a_mount(caller: Caller, engine: str) -> None:
    project = caller.base / "project"
    if caller.uid == 0 and engine == "guard":
        with pytest.raises(AssertionError, match="the sandbox's user could not write"):
            caller.attempt(engine, "", mounts=[[str(project), True]])
        return
    lines = [
        "open('a', 'w').close() or os.chmod('a', 0o4755)",
        "os.chmod('a', 0o2755)",
        "os.fchmod(os.open('a', os.O_RDONLY), 0o6755)",
        "os.chmod('a', 0o4755, dir_fd=os.open('.', os.O_RDONLY))",
        "call(452, os.open('.', os.O_RDONLY), ctypes.c_char_p(b'a'), 0o4755, 0)",
        "os.close(os.open('b', os.O_CREAT | os.O_WRONLY, 0o4755))",
        "os.mknod('c', 0o104755)",
        "subprocess.run(['cp', '-p', '/usr/bin/su', 'd']) and os.stat('d').st_mode & 0o4000 or 1/0",
        "subprocess.run(['install', '-m', '4755', '/bin/true', 'e'], check=True)",
        "os.link('/usr/bin/su', 'f')",
        "os.setxattr('a', 'security.capability', bytes.fromhex('0100000200ffffff' + '00' * 12))",
        "call(437, -100, ctypes.c_char_p(b'g'), ctypes.c_char_p(b'x' * 24), 24)",
    ]
    result = caller.attempt(engine, tried(*lines), mounts=[[str(project), True]])
    refused(result, len(lines))
    for folder, _, files in os.walk(project):
        for name in files:
            status = os.lstat(os.path.join(folder, name))
            assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID), name
            assert status.st_uid == caller.uid, name


def test_host_processes_cannot_be_signalled_or_traced(caller: Caller, engine: str) -> None:
    with caller.popen("sleep", "600") as victim:
        lines = [
            f"os.kill({victim.pid}, 9)",
            f"os.kill({victim.pid}, 0)",
            f"os.kill(-{victim.pid}, 9)",
            f"signal.pidfd_send_signal(os.pidfd_open({victim.pid}), 9)",
            f"call(101, 16, {victim.pid}, 0, 0)",
            f"call(310, {victim.pid}, 0, 0, 0, 0, 0)",
            f"resource.prlimit({victim.pid}, resource.RLIMIT_CPU, (0, 0))",
            f"open('/proc/{victim.pid}/mem', 'rb').read(1)",
            f"open('/proc/{victim.pid}/environ', 'rb').read() or 1/0",
        ]
        try:
            refused(caller.attempt(engine, tried(*lines)), len(lines))
            assert victim.poll() is None
        finally:
            victim.kill()


def test_privileges_cannot_be_gained(caller: Caller, engine: str) -> None:
    lines = [
        "call(272, 0x10000000)",  # unshare(CLONE_NEWUSER)
        "call(56, 0x10000000 | 17, 0, 0, 0, 0)",  # clone(CLONE_NEWUSER | SIGCHLD)
        "call(435, 0, 0)",  # clone3
        "call(165, b'none', b'/tmp', b'tmpfs', 0, 0)",  # mount
        "call(155, b'/', b'/')",  # pivot_root
        "call(161, b'/tmp')",  # chroot
        "call(425, 1, 0)",  # io_uring_setup
        "call(250, 0, -3, 0, 0, 0)",  # keyctl
        "call(248, b'user', b'x', b'y', 1, -3)",  # add_key
        "call(321, 0, 0, 0)",  # bpf
        "call(298, 0, 0, 0, 0, 0)",  # perf_event_open
        "call(323, 0)",  # userfaultfd
        "call(175, 0, 0, b'')",  # init_module
        "call(0x40000000 + 39)",  # getpid of the x32 ABI
        "os.setuid(0) or os.getuid() and 1/0",
        "subprocess.run(['su', '-c', 'true'], stdin=subprocess.DEVNULL, check=True)",
    ]
    refused(caller.attempt(engine, tried(*lines)), len(lines))


def test_a_payload_has_three_descriptors_and_no_capabilities(caller: Caller, engine: str) -> None:
    program = (
        "import os\n"
        "print(sorted(os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd')))\n"
        "for line in open('/proc/self/status'):\n"
        "    if line.startswith(('Cap', 'NoNewPrivs', 'Seccomp:')): print(line.split()[1])\n"
    )
    said = str(caller.attempt(engine, program)["said"]).splitlines()
    assert said[0] == "['0', '1', '2'] 4"  # the fourth is the listing itself
    held = said[1:4] + said[5:6]
    assert held == ["0" * 16] * 4
    # Who never had a capability cannot shrink the bounding set; no_new_privs makes it meaningless.
    assert engine == "guard" or said[4] == "0" * 16
    assert said[6:] == ["1", "2"]


def test_fewer_processes_than_the_limit_can_be_made(caller: Caller, engine: str) -> None:
    program = (
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    while made < 200:\n"
        "        if os.fork() == 0: time.sleep(60); os._exit(0)\n"
        "        made += 1\n"
        "except OSError: pass\n"
        "print(made)\n"
    )
    made = int(str(caller.attempt(engine, program, processes=40)["said"]))
    assert 10 <= made < 60


def test_less_memory_than_the_limit_can_be_had(caller: Caller, engine: str) -> None:
    program = "print(len(bytearray(900 << 20)))"
    result = caller.attempt(engine, program, memory=300 << 20)
    assert result["code"] != 0
    assert "943718400" not in str(result["said"])


def test_a_file_in_memory_counts_as_well(caller: Caller) -> None:
    program = tried("open('/tmp/big', 'wb').write(bytes(64 << 20))")
    program += "print(os.path.getsize('/tmp/big'))\n"
    result = caller.attempt("namespaces", program, memory=48 << 20)
    assert "67108864" not in str(result["said"])


def test_a_fork_bomb_ends_with_its_session(caller: Caller, engine: str) -> None:
    marker = f"bomb-{caller.uid}-{time.monotonic_ns()}"
    program = (
        f"# {marker}\n"
        "import os, signal, sys, time\n"
        "for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n"
        "    while True:\n"
        "        try: os.fork()\n"
        "        except OSError: pass\n"
        "time.sleep(0.5)\n"
    )
    assert caller.attempt(engine, program, processes=200)["code"] == 0
    from cli.support import eventually, marked

    assert eventually(lambda: marked(marker) == [], 10)


def test_nothing_can_be_typed_into_the_callers_terminal(caller: Caller, engine: str) -> None:
    import pty

    program = (
        "import fcntl, os, termios\n"
        "for where in (0, 1, 2, '/dev/tty'):\n"
        "    try:\n"
        "        tty = os.open(where, os.O_RDWR) if isinstance(where, str) else where\n"
        "        for byte in b'echo PWNED\\n': fcntl.ioctl(tty, termios.TIOCSTI, bytes([byte]))\n"
        "        print('typed')\n"
        "    except OSError: print('refused')\n"
    )
    wish = {**DEFAULTS, "engine": engine, "program": program}
    ours, theirs = pty.openpty()
    with caller.popen(
        *(caller.python, "-c", PROBE, json.dumps(wish)),
        stdin=theirs,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        out, _ = process.communicate(timeout=60)
    os.close(ours)
    assert json.loads(out)["said"] == "refused\n" * 4


def test_sigkill_of_the_owner_ends_everything(caller: Caller, engine: str) -> None:
    from cli.support import DAEMONS, eventually, marked

    for pause in (0.0, 0.02, 0.05, 0.1, 0.2, 0.5):
        marker = f"owner-{time.monotonic_ns()}"
        wish = {**DEFAULTS, "engine": engine, "program": f"# {marker}\n{DAEMONS}"}
        with caller.popen(
            *(caller.python, "-c", PROBE, json.dumps(wish)), stdout=subprocess.DEVNULL
        ) as process:
            instances = caller.base / "state" / "instances"
            eventually(lambda: instances.exists() and any(instances.iterdir()), 10)  # noqa: B023 - used at once
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert eventually(lambda: marked(marker) == [], 3), (pause, marked(marker))  # noqa: B023 - used at once
        assert eventually(lambda: not any(instances.iterdir()), 20), list(instances.iterdir())  # noqa: B023 - used at once


def test_roots_project_can_be_worked_on_and_stays_roots(caller: Caller) -> None:
    project = caller.base / "project"
    (project / "mine").write_text("mine")
    (project / "mine").chmod(0o600)
    os.chown(project / "mine", caller.uid, caller.uid)
    program = tried("open('mine').read()", "open('new', 'w').write('x')", "os.mkdir('folder')")
    result = caller.attempt("namespaces", program, mounts=[[str(project), True]])
    assert str(result["said"]).splitlines() == ["0 'mine'", "1 1", "2 None"]
    assert (project / "new").stat().st_uid == (project / "folder").stat().st_uid == caller.uid


def test_a_source_that_became_a_symlink_is_refused(caller: Caller) -> None:
    program = (
        "import asyncio, pathlib, sys, claw_core\n"
        "from claw_core import model\n"
        "base = pathlib.Path(sys.argv[1])\n"
        "async def main():\n"
        "    async with claw_core.Router.open() as router:\n"
        "        mount = model.Mount(base / 'project', '/x', authorised=True)\n"
        "        from claw_core.local.runtime import LocalRuntime\n"
        "        prepare = LocalRuntime.prepare\n"
        "        async def swap(self, instance):\n"
        "            (base / 'project').rename(base / 'aside')\n"
        "            (base / 'project').symlink_to(base / 'home')\n"
        "            await prepare(self, instance)\n"
        "        LocalRuntime.prepare = swap\n"
        "        async with router.session(runtime='local', mounts=[mount]) as session:\n"
        "            await session.run(['cat', '/x/private'])\n"
        "asyncio.run(main())\n"
    )
    with caller.popen(
        *(caller.python, "-c", program, str(caller.base)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"has become a symlink" in err
    assert b"canary" not in out + err


def test_files_go_in_and_come_out(caller: Caller, engine: str) -> None:
    program = (
        "import asyncio, pathlib, sys, claw_core\n"
        "base, engine = pathlib.Path(sys.argv[1]), sys.argv[2]\n"
        "async def main():\n"
        "    (base / 'project' / 'file').write_text('content')\n"
        "    settings = claw_core.Settings(runtimes={'local': {'engine': engine}})\n"
        "    config = claw_core.Config.of(settings)\n"
        "    async with claw_core.Router.open(config=config) as router:\n"
        "        async with router.session(runtime='local') as session:\n"
        "            await session.upload(base / 'project', 'in')\n"
        "            copy = 'cp -r $HOME/in $HOME/out && echo x >> $HOME/out/file'\n"
        "            await session.run(['sh', '-c', copy])\n"
        "            await session.download('out', base / 'back')\n"
        "asyncio.run(main())\n"
        "print((base / 'back' / 'file').read_text())\n"
    )
    with caller.popen(
        *(caller.python, "-c", program, str(caller.base), engine),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        out, err = process.communicate(timeout=60)
    assert out == b"contentx\n\n", err.decode()
