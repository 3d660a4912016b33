"""Commands in a container: streams, ends, and what is left of those that are stopped."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import resource
import time
from collections.abc import AsyncIterator

import pytest

from claw_core.errors import DeadlineExceeded, RuntimeFault, SpentInstance
from claw_core.model import Control, Resources, Signal
from cli.support import eventually
from runtime_docker.engines import TestEngine
from runtime_docker.support import gather, output, processes, run, session, shell

DAEMONS = """
trap '' TERM INT HUP
for number in 1 2 3 4 5; do
    setsid sh -c 'trap "" TERM INT HUP; while :; do sleep 600; done' < /dev/null > /dev/null 2>&1 &
    (setsid sleep 700 &)
done
echo ready
while :; do sleep 600; done
"""


def test_output_and_errors_are_apart_and_the_code_is_the_commands_own(engine: TestEngine) -> None:
    async def work() -> None:
        async with session(engine) as s:
            ended, out, err = await output(s, "sh", "-c", "echo one; echo two >&2; exit 3")
            assert (ended.code, out, err) == (3, "one\n", "two\n")

    run(work())


async def codes(engine: TestEngine, numbers: list[int]) -> None:
    async with session(engine) as s:
        for start in range(0, len(numbers), 8):
            some = numbers[start : start + 8]
            found = await gather(*(output(s, "sh", "-c", f"exit {n}") for n in some))
            assert [ended.code for ended, _, _ in found] == some


def test_exit_codes(engine: TestEngine) -> None:
    run(codes(engine, [0, 1, 2, 64, 125, 126, 127, 128, 129, 200, 254, 255]))


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_every_exit_code(engine: TestEngine) -> None:
    run(codes(engine, list(range(256))), 280)


def test_a_command_that_kills_itself_has_the_shells_code(engine: TestEngine) -> None:
    async def work() -> None:
        async with session(engine) as s:
            for number in (9, 15):
                assert (await output(s, "sh", "-c", f"kill -{number} $$"))[0].code == 128 + number

    run(work())


def test_what_cannot_be_started_is_told(engine: TestEngine) -> None:
    async def work() -> None:
        async with session(engine) as s:
            ended, out, err = await output(s, "nope")
            assert (ended.code, out, err) == (127, "", "")
            assert "nope: command not found" in str(ended.reason)
            assert (await output(s, "/bin/nope"))[0].code == 127
            ended, out, err = await output(s, "/etc/passwd")
            assert (ended.code, out, err) == (126, "", "")
            assert "cannot be executed" in str(ended.reason)
            with pytest.raises(RuntimeFault, match="cannot start in '/nowhere'"):
                await output(s, "true", workdir="/nowhere")
            assert await shell(s, "echo still here") == "still here\n"

    run(work())


def test_arguments_environment_and_directory_arrive_as_they_are(engine: TestEngine) -> None:
    arguments = ["a b", "", "*", "$HOME", "'\"\\", "-n", "ünïcode", "line\nbreak"]

    async def work() -> None:
        async with session(engine, env={"ONE": "a'b c\n", "TWO": "x"}, workdir="/tmp") as s:
            _, out, _ = await output(s, "printf", "[%s]", *arguments)
            assert out == "".join(f"[{one}]" for one in arguments)
            program = 'printf "%s|%s|%s|" "$ONE" "$TWO" "$HOME"; pwd'
            found = await shell(s, program, env={"TWO": "y"})
            assert found == "a'b c\n|y|/home/agent|/tmp\n"
            assert await shell(s, "pwd", workdir="/etc") == "/etc\n"

    run(work())


def test_the_default_directory_is_writable_scratch_space(engine: TestEngine) -> None:
    async def work() -> None:
        async with session(engine) as s:
            program = "pwd; echo '#!/bin/sh' > run; echo 'echo ran' >> run; chmod +x run; ./run"
            assert await shell(s, program) == "/workspace\nran\n"
            assert await shell(s, "cd; pwd; touch x; ls") == "/home/agent\nx\n"

    run(work())


def test_input_is_byte_exact_and_ends(engine: TestEngine) -> None:
    data = os.urandom(5_000_000)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 77_777):
            yield data[start : start + 77_777]

    async def work() -> None:
        async with session(engine) as s:
            _, out, _ = await output(s, "sha256sum", stdin=chunks())
            assert out.split()[0] == hashlib.sha256(data).hexdigest()
            back = bytearray()

            async def keep(piece: bytes) -> None:
                back.extend(piece)

            assert (await s.run(["cat"], stdin=data, stdout=keep)).code == 0
            assert bytes(back) == data
            assert (await output(s, "cat", stdin=b""))[:2] == (await output(s, "true"))[:2]
            assert (await output(s, "cat"))[0].code == 0

    run(work())


def test_a_command_that_does_not_read_its_input_is_no_failure(engine: TestEngine) -> None:
    async def forever() -> AsyncIterator[bytes]:
        while True:
            yield bytes(100_000)

    async def work() -> None:
        async with session(engine) as s:
            assert (await output(s, "true", stdin=forever()))[0].code == 0

    run(work())


async def pour(engine: TestEngine, size: int) -> None:
    """Read `size` bytes through a sink that is slow at first, with bounded memory."""
    moved = 0

    async def slow(data: bytes) -> None:
        nonlocal moved
        if moved == 0:
            await asyncio.sleep(0.5)
        moved += len(data)

    async with session(engine) as s:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        command = ["dd", "if=/dev/zero", "bs=1048576", f"count={size >> 20}"]
        assert (await s.run(command, stdout=slow)).code == 0
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert moved == size
    assert grown < 32 << 10  # KiB


def test_much_output_in_bounded_memory(engine: TestEngine) -> None:
    run(pour(engine, 128 << 20))


@pytest.mark.soak
def test_a_gigabyte_of_output_in_bounded_memory(engine: TestEngine) -> None:
    run(pour(engine, 1 << 30))


def test_fifty_commands_at_once(engine: TestEngine) -> None:
    async def work() -> None:
        async with session(engine) as s:
            numbers = range(50)
            found = await gather(*(output(s, "sh", "-c", f"echo {n}; exit {n}") for n in numbers))
            assert [(e.code, o) for e, o, _ in found] == [(n, f"{n}\n") for n in numbers]

    run(work())


def test_a_deadline_leaves_no_process(engine: TestEngine) -> None:
    async def work() -> None:
        async with session(engine) as s:
            with pytest.raises(DeadlineExceeded):
                await output(s, "sh", "-c", DAEMONS, timeout=0.6)
            assert processes(engine, s.name) == []
            assert await shell(s, "echo next") == "next\n"

    run(work())


def test_a_fork_bomb_is_ended_with_its_instance_if_need_be(engine: TestEngine) -> None:
    async def work() -> None:
        async with session(engine, resources=Resources(processes=60)) as s:
            with pytest.raises((DeadlineExceeded, SpentInstance)) as caught:
                await output(
                    s, "sh", "-c", "bomb() { bomb | bomb & }; bomb & exec sleep 600", timeout=1
                )
            if caught.type is DeadlineExceeded:
                assert processes(engine, s.name) == []
            else:
                assert eventually(lambda: s.name not in engine.names(), 30)

    run(work())


def test_what_runs_ahead_of_whoever_looks_for_it_is_ended(engine: TestEngine) -> None:
    """Each process of the chain starts the next one, and is gone before anybody has seen it."""
    link = '(setsid sh -c "$0" "$0" < /dev/null > /dev/null 2>&1 &)'

    async def work() -> None:
        async with session(engine) as s:
            with pytest.raises((DeadlineExceeded, SpentInstance)) as caught:
                await output(s, "sh", "-c", 'sh -c "$0" "$0"; sleep 600', link, timeout=0.5)
            if caught.type is DeadlineExceeded:
                assert processes(engine, s.name) == []
                assert await shell(s, "echo next") == "next\n"
            else:
                assert eventually(lambda: s.name not in engine.names(), 30)

    run(work())


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.02, 0.05, 0.1])
def test_cancellation_at_any_moment_leaves_no_process(engine: TestEngine, delay: float) -> None:
    async def work() -> None:
        async with session(engine) as s:
            task = asyncio.create_task(output(s, "sh", "-c", DAEMONS))
            await asyncio.sleep(delay)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert processes(engine, s.name) == []
            assert await shell(s, "echo next") == "next\n"

    run(work())


def test_stopping_one_command_leaves_the_others_alone(engine: TestEngine) -> None:
    async def work() -> None:
        async with session(engine) as s:
            ready = asyncio.Event()

            async def notice(data: bytes) -> None:
                ready.set()

            other = asyncio.create_task(output(s, "sh", "-c", "sleep 1; sleep 1; echo other"))
            task = asyncio.create_task(s.run(["sh", "-c", DAEMONS], stdout=notice))
            await ready.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            left = processes(engine, s.name)
            assert not [line for line in left if "600" in line or "700" in line], left
            assert (await other)[1] == "other\n"

    run(work())


def test_a_sink_that_fails_ends_the_command(engine: TestEngine) -> None:
    async def fail(data: bytes) -> None:
        raise ValueError("the reader is gone")

    async def work() -> None:
        async with session(engine) as s:
            with pytest.raises(ValueError, match="the reader is gone"):
                await s.run(["sh", "-c", DAEMONS], stdout=fail)
            assert processes(engine, s.name) == []

    run(work())


def test_signals_reach_the_command(engine: TestEngine) -> None:
    async def work() -> None:
        async with session(engine) as s:
            ready = asyncio.Event()

            async def notice(data: bytes) -> None:
                ready.set()

            async def control() -> AsyncIterator[Control]:
                await ready.wait()
                yield Signal(10)

            program = "trap 'exit 42' USR1; echo ready; while :; do sleep 0.05; done"
            ended = await s.run(["sh", "-c", program], stdout=notice, control=control())
            assert ended.code == 42

    run(work())


def test_a_container_that_is_removed_meanwhile_is_a_fault(engine: TestEngine) -> None:
    async def work() -> None:
        async with session(engine) as s:

            async def remove(data: bytes) -> None:
                path = f"/containers/{s.name}?force=1"
                await asyncio.to_thread(engine.call, "DELETE", path)

            with pytest.raises(RuntimeFault, match="the container ended while the command ran"):
                await s.run(["sh", "-c", "echo x; sleep 600"], stdout=remove)

    run(work())


def test_a_command_that_kills_everything_is_a_fault_and_leaves_nothing(engine: TestEngine) -> None:
    async def work() -> None:
        async with session(engine) as s:
            with pytest.raises(RuntimeFault, match="the container ended"):
                await output(s, "sh", "-c", "kill -9 -1; sleep 600")

    run(work())


def test_output_of_a_daemon_that_stays_behind_does_not_hold_the_command(
    engine: TestEngine,
) -> None:
    async def work() -> None:
        async with session(engine) as s:
            started = time.monotonic()
            assert await shell(s, "sleep 60 & echo done") == "done\n"
            assert time.monotonic() - started < 20

    run(work())


def test_more_memory_than_allowed_ends_the_command_and_not_the_engine(engine: TestEngine) -> None:
    async def work() -> None:
        async with session(engine, settings={"memory": "32m"}) as s:
            # The kernel may choose what holds the container alive; then that is said.
            with contextlib.suppress(RuntimeFault):
                assert (await output(s, "sh", "-c", "tail /dev/zero"))[0].code == 137

    run(work())
    assert eventually(engine.answers)
