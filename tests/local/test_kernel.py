"""The kernel's own doors: calls of other architectures, /proc, networks, terminals."""

from __future__ import annotations

import os
import pty
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from local.callers import Caller

INT80 = """
#include <stdio.h>
int main(void) {
    long result = 20; /* getpid of the i386 table */
    puts("before"); fflush(stdout);
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory");
    printf("after %ld\\n", result);
    return 0;
}
"""


def test_calls_of_other_architectures_do_not_exist(caller: Caller, engine: str) -> None:
    source = caller.write("int80.c", INT80)
    binary = caller.project / "int80"
    compiler = shutil.which("cc")
    if compiler is None or os.uname().machine != "x86_64":
        pytest.skip("needs a C compiler on x86-64")
    subprocess.run([compiler, "-o", binary, source], check=True)
    project = str(caller.project)
    answers = caller.tried(
        engine,
        f"subprocess.run([{str(binary)!r}], stdout=subprocess.PIPE)",
        "call(0x40000000 + 39)",
        "call(0x40000000 + 520, 0, 0, 0)",
        "call(435, bytes(88), 88)",
        "call(425, 8, bytes(120))",
        mounts=[[project, project, False]],
    )
    assert "returncode=-31" in answers[0], answers  # SIGSYS
    assert "after" not in answers[0]
    assert all("REFUSED OSError [Errno 38]" in answer for answer in answers[1:4]), answers
    assert "REFUSED PermissionError" in answers[4]


def test_privileged_doors_stay_shut(caller: Caller, engine: str) -> None:
    answers = caller.tried(
        engine,
        "open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/true')",
        "open('/proc/sysrq-trigger', 'w').write('h')",
        "open('/proc/kcore', 'rb').read(1) or 1 / 0",
        "open('/proc/kmsg').read(1)",
        "open(f'/proc/{os.getppid()}/environ').read()",
        "os.listdir(f'/proc/{os.getppid()}/fd')",
        "open(f'/proc/{os.getppid()}/mem', 'rb')",
        "os.listdir(f'/proc/{os.getppid()}/root/')",
        "os.readlink(f'/proc/{os.getppid()}/exe')",
        "open('/proc/1/environ').read()",
        "os.listdir('/proc/1/root/')",
        "open('/proc/self/exe', 'ab')",
        "call(165, b'none', b'/tmp', b'tmpfs', 0, 0)",
        "call(272, 0x10000000)",
        "call(56, 0x10000000 | 17, 0, 0, 0, 0)",
        "call(250, 0, -3)",
        "call(321, 0, bytes(64), 64)",
        "call(298, bytes(112), 0, -1, -1, 0)",
        "call(101, 16, os.getppid(), 0, 0)",
        "call(310, os.getppid(), bytes(16), 1, bytes(16), 1, 0)",
        "call(438, 0, 0, 0)",
        "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
        "os.setuid(0)",
        "os.chroot('/')",
        "call(304, -100, bytes(16), 0)",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        "socket.socket(40, socket.SOCK_STREAM)",
        "socket.socket(38, socket.SOCK_SEQPACKET)",
    )
    assert all("REFUSED" in answer for answer in answers), "\n".join(answers)


def test_only_the_three_streams_are_open_and_they_can_be_opened_again(
    caller: Caller, engine: str
) -> None:
    answers = caller.tried(
        engine,
        "[fd for fd in range(1024) if os.path.lexists(f'/proc/self/fd/{fd}')]",
        "open('/dev/stdout', 'w').close()" if engine == "namespaces" else "None",
        "open('/proc/self/fd/1', 'w').close()",
        "open('/proc/self/fd/2', 'w').close()",
        "os.getsid(0) == os.getpid()",
        "set(open('/proc/self/status').read().split('CapInh:')[1].split()[:7:2])",
    )
    assert answers[:5] == ["[0, 1, 2]", "None", "None", "None", "True"]
    assert "'0000000000000000'" in answers[5]


def test_network_none_reaches_nothing_and_default_reaches_the_host(
    caller: Caller, engine: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        lines = (
            f"socket.create_connection(('127.0.0.1', {port}), 2).close()",
            f"socket.socket(2, 2).sendto(b'x', ('127.0.0.1', {port}))",
            "socket.socket(2, 2).sendto(b'x', ('192.0.2.1', 53))",
            "socket.create_connection(('192.0.2.1', 80), 1)",
        )
        answers = caller.tried(engine, *lines, network="none")
        assert "REFUSED" in answers[0]
        assert "REFUSED" in answers[2]
        assert "REFUSED" in answers[3]
        answers = caller.tried(engine, *lines[:2], network="default")
        assert answers == ["None", "1"]


@pytest.mark.parametrize("network", ["none", "default"])
def test_abstract_sockets_of_the_host_are_out_of_reach(
    caller: Caller, engine: str, network: str
) -> None:
    name = f"\0claw-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        (answer,) = caller.tried(
            engine, f"socket.socket(socket.AF_UNIX).connect({name!r})", network=network
        )
        assert "REFUSED" in answer


def test_a_payload_has_no_terminal(root: Caller, engine: str) -> None:
    program = (
        "import os, fcntl\n"
        "for fd in (0, 1, 2):\n"
        "    assert not os.isatty(fd)\n"
        "    try: fcntl.ioctl(fd, 0x5412, b'x')\n"
        "    except OSError: pass\n"
        "    else: print('TYPED')\n"
        "try: os.open('/dev/tty', os.O_RDWR)\n"
        "except OSError: print('NO' + 'TTY')\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        driver = (
            "import asyncio, sys\nfrom claw_core import Config, Router, Settings\n"
            "async def main():\n"
            f"  settings = Settings(runtimes={{'local': {{'engine': {engine!r}}}}})\n"
            "  async with Router.open(config=Config.of(settings)) as router:\n"
            "    result = await router.run(['/usr/bin/python3', '-c', sys.argv[1]])\n"
            "    print(result.stdout, result.stderr)\n"
            "asyncio.run(main())\n"
        )
        os.execve(root.python, [root.python, "-c", driver, program], root.env)
    said = b""
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:
            break
        if not chunk:
            break
        said += chunk
    os.waitpid(pid, 0)
    os.close(terminal)
    assert b"NOTTY" in said, said
    assert b"TYPED" not in said


def test_what_is_seen_of_the_processes_matches_the_axes(caller: Caller) -> None:
    answers = caller.tried(
        "namespaces",
        "sorted(int(name) for name in os.listdir('/proc') if name.isdigit())[-1] < 10",
        "os.kill(1, 9)",
        "open('/etc/hostname').read()",
        "open('/etc/shadow').read()",
        "os.listdir('/var/lib')",
        "open('/new', 'w')",
        "os.listdir('/sys')",
    )
    assert answers[0] == "True"
    assert answers[1] == "None"  # the kernel drops it: nobody may end process 1 from inside
    assert all("REFUSED" in answer for answer in answers[2:]), answers
    assert Path("/etc/shadow").exists()
