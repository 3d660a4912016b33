"""Checks of a command's streams: every byte, apart, in both directions, at the reader's pace."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from claw_core.capture import Capture
from claw_core.errors import OutputLimitExceeded, SpentInstance
from claw_core.model import IO, Command, Signal
from claw_core.testing.contract.stage import Stage, once
from claw_core.testing.contract.talk import Talk
from claw_core.testing.contract.verdict import Broken, about

_MUCH: Final = 64 << 20
"""More than all buffers on the way together."""
_HELD: Final = 24 << 20
"""Bytes that may be held in memory for a reader that does not read."""


@about("execute")
async def the_two_streams_are_apart(stage: Stage) -> None:
    """Standard output and standard error arrive apart, each byte for byte."""
    both = bytes(range(256)) * 64
    async with stage.instance() as live:
        done = await live.run("printf 'one\\000two'; printf 'three\\000four' >&2")
        if (done.out, done.err) != (b"one\0two", b"three\0four"):
            raise Broken(f"`one two` and `three four` came as {done}")
        done = await live.run("cat; echo said >&2", stdin=both)
        if done.out != both or done.err != b"said\n":
            raise Broken(f"{len(both)} bytes of all values came as {len(done.out)}, {done.err!r}")
        # In turns, each more than a pipe holds: whoever reads one to its end first waits for ever.
        much = "head -c 200000 /dev/zero"
        done = await live.run(f"for _ in 1 2; do {much}; {much} | tr '\\0' x >&2; done")
        if (done.out, done.err) != (bytes(400_000), b"x" * 400_000):
            raise Broken(
                f"400000 bytes to each came as {len(done.out)} and {len(done.err)}, or mixed"
            )


@about("execute")
async def words_arrive_as_they_are_said(stage: Stage) -> None:
    """Input, standard output and standard error arrive line by line while the command runs."""
    program = 'while read -r line; do echo "$line"; echo "$line" >&2; done; exit 6'
    async with stage.instance() as live, Talk.open(live, program) as talk:
        for word in (b"one\n", b"two\n"):
            talk.say(word)
            if not await talk.hears(word, word):
                raise Broken(f"it should answer {word!r} on both streams, and now: {talk}")
        talk.say(None)
        if not await talk.ends() or talk.work.result().exit.code != 6:
            raise Broken(f"it should end with 6 when its input does, and now: {talk}")


@about("execute")
async def input_arrives_and_ends(stage: Stage) -> None:
    """Input arrives byte for byte and ends, and the command may speak after its end."""
    data = stage.random.randbytes(300_000)
    size = 7_001
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    async with stage.instance() as live:
        done = await live.run("cat; echo end >&2; exit 3", stdin=once(*chunks))
        if done.out != data:
            raise Broken(f"{len(data)} bytes came back as {len(done.out)}")
        if done.err != b"end\n" or done.exit.code != 3:
            raise Broken(f"after the end of its input: {done.exit}, {done.err!r}")
        done = await live.run("cat; echo end")
        if done.out != b"end\n":
            raise Broken(f"without any input: {done}")


@about("execute")
async def input_nobody_reads_is_not_waited_for(stage: Stage) -> None:
    """A command that does not read its input ends all the same."""
    asked = asyncio.Event()

    async def silent() -> AsyncIterator[bytes]:
        asked.set()
        yield b"first\n"
        await asyncio.Event().wait()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 16)

    async with stage.instance() as live:
        for name, chunks in (("silent", silent()), ("endless", endless())):
            done = await live.run("exit 5", stdin=chunks)
            if done.exit.code != 5:
                raise Broken(f"with a {name} input: {done}")


@about("execute")
async def no_tail_is_lost(stage: Stage) -> None:
    """All that a command wrote before its end arrives before its exit code."""
    async with stage.instance() as live:
        for number in range(12):
            done = await live.run(f"printf %s {number}; printf %s {number} >&2; exit {number}")
            expected = str(number).encode()
            if (done.out, done.err, done.exit.code) != (expected, expected, number):
                raise Broken(f"a short command wrote {number} to both streams: {done}")
        done = await live.run("head -c 3000000 /dev/zero; printf end; printf end >&2")
        if len(done.out) != 3_000_003 or not done.out.endswith(b"end") or done.err != b"end":
            raise Broken(f"of 3000003 bytes came {len(done.out)}, with the end {done.out[-3:]!r}")


@about("execute")
async def a_slow_reader_slows_the_command(stage: Stage) -> None:
    """A reader that does not read stops the command, and costs no memory beside some buffers."""
    first, go, over = asyncio.Event(), asyncio.Event(), asyncio.Event()
    amount = 0

    async def slow(data: bytes) -> None:
        nonlocal amount
        amount += len(data)
        first.set()
        await go.wait()

    async def other(_: bytes) -> None:
        over.set()

    async with stage.instance() as live:
        program = f"head -c {_MUCH} /dev/zero; echo over >&2"
        command = Command(("sh", "-c", program))
        before = _memory()
        work = asyncio.create_task(
            live.runtime.execute(live.instance, command, IO(None, slow, other))
        )
        try:
            async with asyncio.timeout(10):
                await first.wait()
        except TimeoutError:
            raise Broken("nothing of its output came within 10 s") from None
        await asyncio.wait({work}, timeout=1.0)
        held = _memory() - before
        if over.is_set() or work.done():
            raise Broken(f"it wrote {_MUCH >> 20} MiB to a reader that took {amount} bytes")
        if held > _HELD:
            raise Broken(f"{held >> 20} MiB were kept for a reader that does not read")
        go.set()
        await work
        if amount != _MUCH:
            raise Broken(f"of {_MUCH} bytes came {amount}")


@about("execute")
async def a_reader_that_fails_ends_the_command(stage: Stage) -> None:
    """What a reader raises ends the command, and is raised; the instance works on, or is spent."""
    async with stage.instance() as live:
        try:
            done = await live.run("echo more than is taken; sleep 1", stdout=Capture(limit=4))
        except SpentInstance:
            return
        except OutputLimitExceeded:
            await live.works_on("a command whose reader has failed")
        else:
            raise Broken(f"its reader has failed, and it went on to its end: {done}")


@about("execute")
async def a_signal_reaches_the_command(stage: Stage) -> None:
    """A signal that is sent by `control` reaches the command."""
    program = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    async with stage.instance() as live, Talk.open(live, program) as talk:
        if not await talk.hears(b"ready\n"):
            raise Broken(f"it should say `ready` while it runs: {talk}")
        talk.control(Signal(15))
        if not await talk.ends() or not await talk.hears(b"caught\n"):
            raise Broken(f"a command that exits with 9 on SIGTERM, after one: {talk}")
        if talk.work.result().exit.code != 9:
            raise Broken(f"a command that exits with 9 on SIGTERM: {talk}")


def _memory() -> int:
    """Bytes that this process has in memory, or had at most where only that can be known."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


CHECKS: Final = (
    the_two_streams_are_apart,
    words_arrive_as_they_are_said,
    input_arrives_and_ends,
    input_nobody_reads_is_not_waited_for,
    no_tail_is_lost,
    a_slow_reader_slows_the_command,
    a_reader_that_fails_ends_the_command,
    a_signal_reaches_the_command,
)
