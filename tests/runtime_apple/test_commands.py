"""Commands in a container: streams, ends, and what is left of those that are stopped."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from claw_core.errors import (
    ConfigError,
    DeadlineExceeded,
    OutputLimitExceeded,
    RuntimeFault,
    SpentInstance,
    Unsupported,
)
from claw_core.model import Control, Resize, Signal
from claw_core.session import Session
from claw_runtime_apple import commands, spool
from runtime_apple.support import gather, output, run, session, shell
from simulators.container.world import World

DAEMONS = """
trap '' TERM INT HUP
for number in 1 2 3 4 5; do
    setsid sh -c 'trap "" TERM INT HUP; while :; do sleep 600; done' < /dev/null > /dev/null 2>&1 &
    (setsid env -i /bin/sleep 700 < /dev/null > /dev/null 2>&1 &)
done
echo ready
while :; do sleep 600; done
"""
LIVING = (
    "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done"
    " | grep -cE 'sleep [67]00' || true"
)


async def living(s: Session) -> str:
    return await shell(s, LIVING)


def test_output_and_errors_are_apart_and_the_code_is_the_commands_own(world: World) -> None:
    async def work() -> None:
        async with session(world) as s:
            ended, out, err = await output(s, "sh", "-c", "echo one; echo two >&2; exit 3")
            assert (ended.code, out, err) == (3, "one\n", "two\n")
            numbers = [0, 1, 64, 126, 127, 137, 255]
            found = await gather(*(output(s, "sh", "-c", f"exit {n}") for n in numbers))
            assert [ended.code for ended, _, _ in found] == numbers
            for number in (9, 15):
                program = f"kill -{number} $$"
                assert (await output(s, "sh", "-c", program))[0].code == 128 + number

    run(work())


def test_what_cannot_be_started_is_told(world: World) -> None:
    async def work() -> None:
        async with session(world) as s:
            ended, out, err = await output(s, "nope", stdin=b"x")
            assert (ended.code, out, err) == (127, "", "")
            assert "nope: command not found" in str(ended.reason)
            assert (await output(s, "/bin/nope"))[0].code == 127
            ended, out, err = await output(s, "/etc/passwd")
            assert (ended.code, out, err) == (126, "", "")
            assert "cannot be executed" in str(ended.reason)
            with pytest.raises(RuntimeFault, match="cannot start in '/nowhere'"):
                await output(s, "true", workdir="/nowhere")
            with pytest.raises(ConfigError, match="larger than a guest"):
                await output(s, "true", env={"BIG": "x" * (128 << 10)})
            with pytest.raises(Unsupported, match="terminal"):
                await s.run(["true"], terminal=Resize(1, 1))
            assert await shell(s, "echo still here") == "still here\n"

    run(work())


def test_arguments_environment_and_directory_arrive_as_they_are(world: World) -> None:
    world.image("claw-test:env", Env=["PATH=/usr/bin:/bin", "TWO=of the image", "HOME=/root"])
    arguments = ["a b", "", "*", "$HOME", "'\"\\", "-n", "--", "-t", "ünïcode", "line\nbreak"]

    async def work() -> None:
        options: dict[str, Any] = {"image": "claw-test:env", "env": {"ONE": "a'b c\n", "TWO": "x"}}
        async with session(world, workdir="/tmp", **options) as s:
            _, out, _ = await output(s, "printf", "[%s]", *arguments)
            assert out == "".join(f"[{one}]" for one in arguments)
            program = 'printf "%s|%s|%s|" "$ONE" "$TWO" "$HOME"; pwd'
            found = await shell(s, program, env={"TWO": "y"})
            assert found == "a'b c\n|y|/home/agent|/tmp\n"
            assert await shell(s, "pwd", workdir="/etc") == "/etc\n"
            listed = (await shell(s, "env")).splitlines()
            known = {line.partition("=")[0] for line in listed}
            assert known <= {"PATH", "HOME", "ONE", "", "TWO", "CLAW_COMMAND", "PWD", "SHLVL", "_"}

    run(work())


def test_input_is_byte_exact_and_ends(world: World) -> None:
    data = os.urandom(2_000_000)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 77_777):
            yield data[start : start + 77_777]

    async def work() -> None:
        async with session(world) as s:
            _, out, _ = await output(s, "sha256sum", stdin=chunks())
            assert out.split()[0] == hashlib.sha256(data).hexdigest()
            back = bytearray()

            async def keep(piece: bytes) -> None:
                back.extend(piece)

            # It answers while it is being written to: neither may wait for the other.
            assert (await s.run(["cat"], stdin=data, stdout=keep)).code == 0
            assert bytes(back) == data
            assert (await output(s, "cat", stdin=b""))[1] == ""
            assert (await output(s, "cat"))[0].code == 0
            ended, out, _ = await output(s, "sh", "-c", "read -r x; echo $x; exit 4", stdin=b"a\nb")
            assert (ended.code, out) == (4, "a\n")

    run(work())


def test_a_command_that_does_not_read_holds_nobody_up(world: World) -> None:
    asked = asyncio.Event()

    async def forever() -> AsyncIterator[bytes]:
        while True:
            yield bytes(100_000)
            asked.set()

    async def silent() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async def work() -> None:
        async with session(world) as s:
            deaf = asyncio.create_task(output(s, "sleep", "600", stdin=forever()))
            assert await shell(s, "seq 20000 | wc -l") == "20000\n"
            assert not asked.is_set()  # what it does not read is not taken from the caller
            deaf.cancel()
            await asyncio.wait({deaf})
            assert (await output(s, "true", stdin=forever()))[0].code == 0
            assert (await output(s, "true", stdin=silent()))[0].code == 0

    run(work())


def test_an_input_that_fails_is_not_taken_for_its_end(world: World) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ValueError("the file is gone")

    async def work() -> None:
        async with session(world) as s:
            with pytest.raises(ValueError, match="the file is gone"):
                await s.run(["sh", "-c", "cat; echo whole > /tmp/end"], stdin=broken())
            assert (await output(s, "cat", "/tmp/end"))[0].code == 1

    run(work())


def test_a_reader_that_is_slow_pauses_the_command_and_loses_nothing(world: World) -> None:
    size = 48 << 20
    first, go = asyncio.Event(), asyncio.Event()
    moved, digest = 0, hashlib.sha256()

    async def slow(data: bytes) -> None:
        nonlocal moved
        first.set()
        await go.wait()
        moved += len(data)
        digest.update(data)

    async def paused(s: Session) -> bool:
        states = await shell(s, "cat /proc/[0-9]*/stat 2>/dev/null | grep '(dd)' || true")
        return " T " in states

    async def work() -> None:
        async with session(world) as s:
            program = f"dd if=/dev/zero bs=65536 count={size >> 16} 2>/dev/null; exit 7"
            task = asyncio.create_task(s.run(["sh", "-c", program], stdout=slow))
            await first.wait()
            async with asyncio.timeout(30):
                while not await paused(s):
                    assert not task.done()
            go.set()
            assert (await task).code == 7

    run(work())
    assert moved == size
    assert digest.digest() == hashlib.sha256(bytes(size)).digest()


def test_what_cannot_be_paused_is_ended_at_a_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "LIMIT", 1 << 20)

    async def never(_: bytes) -> None:
        await asyncio.Event().wait()

    async def work() -> None:
        async with session(world) as s:
            with pytest.raises(OutputLimitExceeded, match="that nobody read") as caught:
                await s.run(["cat", "/dev/zero"], stdout=never)
            assert caught.value.remedy
            assert await shell(s, "echo next") == "next\n"

    run(work())


def test_the_end_is_the_commands_own_even_if_a_daemon_keeps_its_output(world: World) -> None:
    async def work() -> None:
        async with session(world) as s:
            world.configure(drain_seconds=0.5)
            ended, out, _ = await output(s, "sh", "-c", "sleep 60 & echo done; exit 6")
            assert (ended.code, out) == (6, "done\n")

    run(work())


def test_a_deadline_leaves_no_process(world: World) -> None:
    async def work() -> None:
        async with session(world) as s:
            with pytest.raises(DeadlineExceeded):
                await output(s, "sh", "-c", DAEMONS, timeout=0.6)
            assert await living(s) == "0\n"

    run(work())


def test_what_runs_ahead_of_whoever_looks_for_it_is_ended(world: World) -> None:
    """Each process of the chain starts the next one, and is gone before anybody has seen it."""
    link = 'echo >> /tmp/links; (setsid sh -c "$0" "$0" < /dev/null > /dev/null 2>&1 &)'

    async def work() -> None:
        async with session(world) as s:
            for _ in range(3):
                with pytest.raises(DeadlineExceeded):
                    await output(s, "sh", "-c", 'sh -c "$0" "$0"; sleep 600', link, timeout=0.5)
                counted = "wc -l < /tmp/links"
                before = int(await shell(s, counted))
                assert before > 1
                assert int(await shell(s, f"sleep 0.3; {counted}")) == before

    run(work())


SOAK = pytest.mark.soak


@pytest.mark.parametrize(
    "delay", [0.0, pytest.param(0.01, marks=SOAK), 0.03, pytest.param(0.1, marks=SOAK)]
)
def test_cancellation_at_any_moment_leaves_no_process(world: World, delay: float) -> None:
    async def work() -> None:
        async with session(world) as s:
            task = asyncio.create_task(output(s, "sh", "-c", DAEMONS, stdin=b"x"))
            await asyncio.sleep(delay)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await living(s) == "0\n"

    run(work())


def test_stopping_one_command_leaves_the_others_alone(world: World) -> None:
    async def work() -> None:
        async with session(world) as s:
            ready = asyncio.Event()

            async def notice(data: bytes) -> None:
                ready.set()

            waiting = "until [ -e /tmp/go ]; do sleep 0.05; done; echo other"
            other = asyncio.create_task(output(s, "sh", "-c", waiting))
            task = asyncio.create_task(s.run(["sh", "-c", DAEMONS], stdout=notice))
            await ready.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await shell(s, ": > /tmp/go")
            assert (await other)[1] == "other\n"

    run(work())


def test_a_sink_that_fails_ends_the_command(world: World) -> None:
    async def fail(data: bytes) -> None:
        raise ValueError("the reader is gone")

    async def work() -> None:
        async with session(world) as s:
            with pytest.raises(ValueError, match="the reader is gone"):
                await s.run(["sh", "-c", DAEMONS], stdout=fail)
            assert await living(s) == "0\n"

    run(work())


@pytest.mark.parametrize("version", [pytest.param("0.12.3", marks=SOAK), "1.2.2"])
def test_signals_reach_the_command_and_not_who_tells_of_its_end(world: World, version: str) -> None:
    world.configure(version=version)

    async def signalled(s: Session, program: str, number: int) -> tuple[int, int | None, bytes]:
        ready, out = asyncio.Event(), bytearray()

        async def notice(data: bytes) -> None:
            out.extend(data)
            ready.set()

        async def control() -> AsyncIterator[Control]:
            await ready.wait()
            yield Resize(3, 4)
            yield Signal(number)

        async def silent() -> AsyncIterator[bytes]:
            yield b"word\n"
            await asyncio.Event().wait()

        ended = await s.run(["sh", "-c", program], stdin=silent(), stdout=notice, control=control())
        return ended.code, ended.signal, bytes(out)

    async def work() -> None:
        async with session(world) as s:
            waiting = "read -r x; echo $x; while :; do sleep 0.05; done"
            caught = f"trap 'echo caught; exit 42' USR1; {waiting}"
            assert await signalled(s, caught, 10) == (42, None, b"word\ncaught\n")
            for number in (15, 9, 6):
                code, _, _ = await signalled(s, waiting, number)
                assert code == 128 + number
            assert await shell(s, "echo next") == "next\n"

    run(work())


def test_a_command_that_kills_everything_kills_itself(world: World) -> None:
    async def work() -> None:
        async with session(world) as s:
            world.configure(drain_seconds=0.5)
            assert (await output(s, "sh", "-c", "kill -9 -1; sleep 600"))[0].code == 137
            assert await shell(s, "echo next") == "next\n"

    run(work())


def test_a_container_that_ends_meanwhile_is_a_fault(world: World) -> None:
    async def work() -> None:
        async with session(world) as s:

            async def remove(data: bytes) -> None:
                await asyncio.to_thread(world.run, "delete", "--force", s.name)

            with pytest.raises(SpentInstance, match="the container ended while the command ran"):
                await s.run(["sh", "-c", "echo x; sleep 600"], stdout=remove)

    run(work())


def test_no_call_makes_a_terminal_or_is_passed_values(world: World) -> None:
    async def work() -> None:
        async with session(world, env={"PLAIN": "value-of-it"}, secrets={"S": "value-of-s"}) as s:
            await output(s, "true", stdin=b"x")

    run(work())
    for call in world.journal():
        own = call.argv[: call.argv.index("sh")] if "sh" in call.argv else call.argv
        assert not {"-t", "--tty", "-it", "--", "--all", "prune", "stop"} & set(own)
        assert not any("value-of" in word for word in call.argv)
    (name,) = {
        call.argv[call.argv.index("-e") + 1] for call in world.journal() if "-e" in call.argv
    }
    assert name == "CLAW_ENVIRONMENT"


def test_a_call_that_hangs_after_the_commands_end_is_left_behind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "LINGER", 0.2)
    fault = world.fault("exec", "end", "hang", call=2)

    async def work() -> None:
        async with session(world) as s:
            assert await shell(s, "echo out") == "out\n"
            assert fault.hits == 1

    run(work())
