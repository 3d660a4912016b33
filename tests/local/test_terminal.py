"""What a command in a terminal finds there, and how it ends; in both engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from claw_core.errors import ConfigError
from claw_core.model import Control, Exit, Resize, Signal
from local.support import Output, Session, chunks, descriptors, run, session

SIZE = Resize(33, 101)
PYTHON = ("/usr/bin/python3", "-c")


class Typist(Output):
    """Types or controls when the output says something, and remembers everything."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    async def stdout(self, data: bytes) -> None:
        await super().stdout(data)
        self._changed.set()

    async def sees(self, text: bytes, count: int = 1) -> None:
        async with asyncio.timeout(30):
            while self.out.count(text) < count:
                self._changed.clear()
                await self._changed.wait()


async def typed(typist: Typist, *steps: tuple[bytes, bytes]) -> AsyncIterator[bytes]:
    """For each step wait for a text (`x|x|` is twice x), then type; and then never end."""
    for awaited, keys in steps:
        text, *more = awaited.split(b"|")
        await typist.sees(text, len(more) or 1)
        yield keys
    await asyncio.Event().wait()


async def controls(typist: Typist, *steps: tuple[bytes, Control]) -> AsyncIterator[Control]:
    for awaited, control in steps:
        await typist.sees(awaited)
        yield control


def within(engine: str, work: Callable[[Session], object]) -> None:
    async def main() -> None:
        async with session(engine) as there:
            await work(there)  # type: ignore[misc]  # a coroutine function

    run(main())


def test_it_is_a_terminal_of_that_size_with_a_name(engine: str) -> None:
    async def work(there: Session) -> None:
        ended, said = await there.run("tty", terminal=SIZE)
        assert ended == Exit(0)
        assert said.startswith("/dev/pts/")
        if engine == "namespaces":
            assert said == "/dev/pts/0\r\n"
        assert await there.run("stty", "size", terminal=SIZE) == (Exit(0), "33 101\r\n")
        program = (
            "import os; print(os.get_terminal_size(), os.ttyname(2) == os.ttyname(0),"
            " os.getsid(0) == os.getpid(), os.tcgetpgrp(0) == os.getpgrp(),"
            " os.isatty(os.open('/dev/tty', os.O_RDWR)))"
        )
        ended, said = await there.run(*PYTHON, program, terminal=SIZE)
        wanted = "os.terminal_size(columns=101, lines=33) True True True True\r\n"
        assert (ended, said) == (Exit(0), wanted)

    within(engine, work)


def test_without_a_terminal_there_is_none(engine: str) -> None:
    async def work(there: Session) -> None:
        program = "import os\nfor n in (0, 1, 2): assert not os.isatty(n)\nopen('/dev/tty')"
        ended, said = await there.run(*PYTHON, program)
        assert ended.code == 1
        assert "No such device or address: '/dev/tty'" in said

    within(engine, work)


def test_everything_it_writes_is_standard_output(engine: str) -> None:
    async def work(there: Session) -> None:
        output = Output()
        script = "echo out; echo err >&2; echo tty > /dev/tty"
        await there.run("sh", "-c", script, terminal=SIZE, output=output)
        assert (bytes(output.out), bytes(output.err)) == (b"out\r\nerr\r\ntty\r\n", b"")

    within(engine, work)


def test_the_end_of_the_input_is_the_end_of_a_file(engine: str) -> None:
    async def work(there: Session) -> None:
        for lines in (b"one\ntwo\n", b"one\ntwo", b""):
            ended, said = await there.run("cat", stdin=chunks(lines), terminal=SIZE)
            assert ended == Exit(0)
            assert said.replace("\r", "").count("two") == 2 * (b"two" in lines)  # echo, and cat
        assert await there.run("cat", terminal=SIZE) == (Exit(0), "")

    within(engine, work)


def test_control_c_interrupts_and_control_backslash_quits(engine: str) -> None:
    async def work(there: Session) -> None:
        for key, number in ((b"\x03", 2), (b"\x1c", 3)):
            typist = Typist()
            ended, said = await there.run(
                "sh",
                "-c",
                "echo ready; exec sleep 600",
                stdin=typed(typist, (b"ready", key)),
                output=typist,
                terminal=SIZE,
            )
            assert ended == Exit(128 + number, signal=number), said

    within(engine, work)


def test_a_new_size_is_told(engine: str) -> None:
    program = (
        "import os, signal\n"
        "signal.signal(signal.SIGWINCH, print)  # what is ignored is not waited for either\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])\n"
        "print('ready', flush=True)\n"
        "signal.sigwait([signal.SIGWINCH])\n"
        "print(*os.get_terminal_size())"
    )

    async def work(there: Session) -> None:
        typist = Typist()
        control = controls(typist, (b"ready", Resize(7, 9)))
        ended, said = await there.run(
            *PYTHON, program, control=control, output=typist, terminal=SIZE
        )
        assert (ended, said) == (Exit(0), "ready\r\n9 7\r\n")

    within(engine, work)


def test_a_shell_has_job_control(engine: str) -> None:
    async def work(there: Session) -> None:
        typist = Typist()
        keys = typed(
            typist,
            (b"@ ", b"set -o | grep monitor\r"),
            (2 * b"@ |", b"sh -c 'echo be\"\"gun; exec cat'\r"),
            (b"begun", b"\x1a"),
            (3 * b"@ |", b"fg\r"),
            (3 * b"exec cat'|", b"here I am\n"),  # as typed, as stopped, as continued
            (2 * b"here I am|", b"\x03"),  # as echoed, as answered
            (4 * b"@ |", b"echo en''ded=$?; exit 5\r"),
        )
        ended, said = await there.run(
            *("bash", "--norc", "--noprofile", "-i"),
            env={"PS1": "@ ", "TERM": "dumb"},
            stdin=keys,
            output=typist,
            terminal=SIZE,
        )
        assert ended == Exit(5), said
        assert said.split("monitor", 2)[2].split()[0] == "on"
        assert "ended=130" in said
        assert "no job control" not in said

    within(engine, work)


def test_its_output_is_complete_and_in_order(engine: str) -> None:
    async def work(there: Session) -> None:
        program = "for n in range(200_000): print(n)"
        ended, said = await there.run(*PYTHON, program, terminal=SIZE)
        assert ended == Exit(0)
        assert said == "".join(f"{n}\r\n" for n in range(200_000))

    within(engine, work)


def test_a_slow_reader_slows_it(engine: str) -> None:
    async def work(there: Session) -> None:
        gate, read = asyncio.Event(), 0

        async def sink(data: bytes) -> None:
            nonlocal read
            read += len(data)
            await gate.wait()

        program = (
            "import os, sys\nfor n in range(64): os.write(1, bytes(65536)); os.write(3, b'.')\n"
        )
        output = Output()
        output.stdout = sink  # type: ignore[method-assign]
        marks = f'exec 3>/tmp/marks; exec /usr/bin/python3 -c "{program}"'
        if engine == "guard":
            marks = marks.replace("/tmp", "$TMPDIR")
        running = asyncio.create_task(there.run("sh", "-c", marks, terminal=SIZE, output=output))
        size = -1
        for _ in range(200):
            _, said = await there.run("sh", "-c", "wc -c < ${TMPDIR:-/tmp}/marks; sleep 0.05")
            if said.strip().isdigit() and int(said) == size:
                break
            size = int(said) if said.strip().isdigit() else -1
        assert size < 64
        gate.set()
        ended, _ = await running
        assert (ended, read) == (Exit(0), 64 * 65536)

    within(engine, work)


def test_it_can_be_left_and_opened_again() -> None:
    async def work(there: Session) -> None:
        script = "exec 0<&- 1>&- 2>&-; sleep 0.3; echo again > /dev/tty"
        assert await there.run("sh", "-c", script, terminal=SIZE) == (Exit(0), "again\r\n")

    within("namespaces", work)


def test_who_stays_behind_does_not_hold_the_end_up(engine: str) -> None:
    async def work(there: Session) -> None:
        script = "trap '' HUP; sleep 600 & echo done"
        assert await there.run("sh", "-c", script, terminal=SIZE) == (Exit(0), "done\r\n")

    within(engine, work)


def test_cancelling_ends_every_process(engine: str) -> None:
    async def work(there: Session) -> None:
        typist = Typist()
        script = "trap '' HUP INT TERM; setsid sleep 601 & echo ready; sleep 601"
        running = asyncio.create_task(
            there.run("sh", "-c", script, terminal=SIZE, output=typist, stdin=typed(typist))
        )
        await typist.sees(b"ready")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        _, said = await there.run("sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '")
        assert "sleep 601" not in said

    within(engine, work)


def test_signals_and_codes_come_through(engine: str) -> None:
    async def work(there: Session) -> None:
        assert await there.run("sh", "-c", "exit 9", terminal=SIZE) == (Exit(9), "")
        assert (await there.run("no-such-program", terminal=SIZE))[0].code == 127
        typist = Typist()
        ended, _ = await there.run(
            *("sh", "-c", "echo ready; exec sleep 600"),
            control=controls(typist, (b"ready", Signal(15))),
            stdin=typed(typist),
            output=typist,
            terminal=SIZE,
        )
        assert ended == Exit(143, signal=15)

    within(engine, work)


def test_nobody_types_into_it_from_inside(engine: str) -> None:
    async def work(there: Session) -> None:
        program = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSTI, b'x')"
        ended, said = await there.run(*PYTHON, program, terminal=SIZE)
        assert ended.code == 1
        assert "Operation not permitted" in said

    within(engine, work)


def test_many_at_once_each_have_their_own(engine: str) -> None:
    async def work(there: Session) -> None:
        before = descriptors()
        runs = [there.run("sh", "-c", "tty; sleep 0.2", terminal=SIZE) for _ in range(8)]
        names = [said for _, said in await asyncio.gather(*runs)]
        assert len(set(names)) == 8
        assert descriptors() == before

    within(engine, work)


def test_no_terminal_has_such_a_size() -> None:
    for rows, columns in ((-1, 80), (24, 65536)):
        with pytest.raises(ConfigError, match="no terminal has"):
            Resize(rows, columns)
