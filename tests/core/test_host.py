"""What core gives a backend: tools that end, facts that last, secrets that do not leak."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from claw_core import events
from claw_core.errors import ConfigError, RuntimeFault
from claw_core.host import Host
from claw_core.intent import Intent
from claw_core.ledger import Ledger
from claw_core.locks import InFlight
from claw_core.model import IO, Control, Resize, Signal
from claw_core.tools import OUTPUT_LIMIT


@pytest.fixture
def ledger(state: Path) -> Ledger:
    return Ledger.open(state)


@pytest.fixture
def host(ledger: Ledger) -> Iterator[Host]:
    seen: list[events.Event] = []
    with ledger.acquire(Intent.new(ledger.install, "model")) as lease:
        yield Host(lease, "model", {"KEY": "canary"}, seen.append)


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_a_tool_runs_to_its_end_with_both_streams(host: Host) -> None:
    program = "import sys; data = sys.stdin.read(); print(data); sys.stderr.write('e'); sys.exit(3)"
    done = asyncio.run(host.run(python(program), stdin=b"in"))
    assert (done.code, done.stdout, done.stderr, done.truncated) == (3, b"in\n", b"e", False)


def test_a_tool_that_does_not_read_its_input_is_no_failure(host: Host) -> None:
    assert asyncio.run(host.run(["true"], stdin=b"x" * (1 << 20))).code == 0


def test_output_is_capped_and_the_rest_is_drained(host: Host) -> None:
    program = f"import sys; sys.stdout.write('x' * {3 * OUTPUT_LIMIT})"
    done = asyncio.run(host.run(python(program)))
    assert (done.code, len(done.stdout), done.truncated) == (0, OUTPUT_LIMIT, True)


def test_a_tool_that_hangs_is_killed_at_its_deadline(host: Host) -> None:
    with pytest.raises(RuntimeFault, match=r"within 0\.2 s"):
        asyncio.run(host.run(["sleep", "600"], timeout=0.2))


def test_a_tool_that_is_not_there_is_named(host: Host) -> None:
    with pytest.raises(RuntimeFault, match="no-such-tool"):
        asyncio.run(host.run(["no-such-tool"]))


def test_cancelling_kills_the_tool_and_its_children(host: Host, tmp_path: Path) -> None:
    heartbeat = tmp_path / "heartbeat"
    program = (
        "import os, time, pathlib\n"
        "os.fork()\n"
        f"while True: pathlib.Path({str(heartbeat)!r}).open('a').write('x'); time.sleep(0.01)\n"
    )

    async def main() -> None:
        task = asyncio.create_task(host.run(python(program), timeout=60))
        while not heartbeat.exists():
            await asyncio.sleep(0.01)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    time.sleep(0.05)
    before = heartbeat.stat().st_size
    time.sleep(0.1)
    assert heartbeat.stat().st_size == before


def test_a_mutating_tool_keeps_reapers_away_after_its_owners_death(
    ledger: Ledger, tmp_path: Path
) -> None:
    """The op-lock is inherited by the tool, and only by a tool that changes something."""
    program = f"""
import asyncio, os, pathlib, sys
from claw_core.host import Host
from claw_core.ledger import Intent, Ledger
ledger = Ledger.open(pathlib.Path({str(ledger.state)!r}))
host = Host(ledger.acquire(Intent.new(ledger.install, "model")), "model")
async def main():
    tool = asyncio.create_task(host.run(
        ["sh", "-c", "echo $$ > {tmp_path}/pid; exec sleep 600"], mutates=sys.argv[1] == "yes"))
    while not pathlib.Path("{tmp_path}/pid").exists() or not open("{tmp_path}/pid").read():
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    for mutates in ("yes", "no"):
        (tmp_path / "pid").unlink(missing_ok=True)
        status = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", program, mutates])
        assert status == -9
        tool = int((tmp_path / "pid").read_text())
        (entry,) = ledger.scan()
        assert not entry.alive
        if mutates == "yes":
            with pytest.raises(InFlight):
                ledger.claim(entry)
        os.kill(tool, 9)
        lease = None
        end = time.monotonic() + 10
        while lease is None and time.monotonic() < end:
            with contextlib.suppress(InFlight):
                lease = ledger.claim(entry)
        assert lease is not None
        lease.release()


def test_facts_last_and_never_hold_a_secret(host: Host, ledger: Ledger) -> None:
    asyncio.run(host.record("endpoint", "unix:/run/x"))
    assert host.facts["endpoint"] == "unix:/run/x"
    (entry,) = ledger.scan()
    assert entry.facts["endpoint"] == "unix:/run/x"
    with pytest.raises(RuntimeFault, match="secret"):
        asyncio.run(host.record("endpoint", "x-canary-x"))
    assert "canary" not in entry.path.read_text(errors="replace")


def test_a_secret_in_an_argument_is_refused_without_saying_it(host: Host) -> None:
    with pytest.raises(RuntimeFault, match="KEY") as caught:
        asyncio.run(host.run(["echo", "--key=canary"]))
    assert "canary" not in str(caught.value)


def test_a_secret_is_fetched_by_name_and_redacted_in_progress(host: Host) -> None:
    assert host.secret("KEY") == "canary"
    assert host.redact("the canary sings") == "the [secret KEY] sings"
    with pytest.raises(ConfigError, match="OTHER"):
        host.secret("OTHER")
    assert "canary" not in repr(host)


class Streams:
    """The caller's side of a command's streams."""

    def __init__(self, *chunks: bytes, control: AsyncIterator[Control] | None = None) -> None:
        self.out, self.err = bytearray(), bytearray()
        self.io = IO(self.give(chunks), self.take_out, self.take_err, control)

    async def give(self, chunks: tuple[bytes, ...]) -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def take_out(self, data: bytes) -> None:
        self.out += data

    async def take_err(self, data: bytes) -> None:
        self.err += data


def test_a_tool_in_place_of_a_command_has_the_commands_streams(host: Host) -> None:
    program = (
        "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data[::-1]);"
        "sys.stderr.write('x' * 5000 + 'end'); sys.exit(7)"
    )
    streams = Streams(b"ab", bytes(range(256)))
    done = asyncio.run(host.stream(python(program), streams.io))
    assert done.code == 7
    assert bytes(streams.out) == bytes(range(255, -1, -1)) + b"ba"
    assert len(streams.err) == 5003
    assert done.errors == bytes(streams.err[-4096:])


def test_signals_reach_the_tools_process_group(host: Host) -> None:
    async def main() -> int:
        ready = asyncio.Event()

        async def control() -> AsyncIterator[Control]:
            await ready.wait()
            yield Resize(1, 1)
            yield Signal(signal.SIGUSR1)

        streams = Streams(control=control())

        async def out(data: bytes) -> None:
            ready.set()

        io = IO(None, out, streams.take_err, streams.io.control)
        program = "import signal; print('ready', flush=True); signal.pause()"
        return (await host.stream(python(program), io)).code

    assert asyncio.run(main()) == -signal.SIGUSR1


def test_cancelled_it_ends_everything_in_the_tools_session(host: Host) -> None:
    program = (
        "import os, time\nif os.fork() == 0: time.sleep(600)\nprint(os.getpid(), flush=True)\n"
        "time.sleep(600)"
    )

    async def main() -> int:
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def out(data: bytes) -> None:
            started.set_result(int(data))

        task = asyncio.create_task(host.stream(python(program), IO(None, out, out)))
        group = await started
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return group

    group = asyncio.run(main())
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)  # the child is init's, which reaps it in its own time
    pytest.fail("its child lives on")


def test_a_sink_that_fails_ends_the_tool_and_is_what_is_raised(host: Host) -> None:
    async def broken(data: bytes) -> None:
        raise BrokenPipeError("the reader is gone")

    program = "import time; print('x', flush=True); time.sleep(600)"
    with pytest.raises(BrokenPipeError, match="the reader is gone"):
        asyncio.run(host.stream(python(program), IO(None, broken, broken)))


def test_a_slow_sink_slows_the_tool(host: Host, tmp_path: Path) -> None:
    count = tmp_path / "count"
    program = (
        "import sys\n"
        f"with open({str(count)!r}, 'w', buffering=1) as log:\n"
        "    for n in range(64):\n"
        "        sys.stdout.buffer.write(bytes(1 << 16)); sys.stdout.flush(); print(n, file=log)\n"
    )

    async def main() -> int:
        seen: list[int] = []

        async def slow(data: bytes) -> None:
            if not seen:
                before = -1
                while before != (now := len(count.read_text().split())):
                    before = now
                    await asyncio.sleep(0.2)
                seen.append(now)

        await host.stream(python(program), IO(None, slow, slow))
        return seen[0]

    assert asyncio.run(main()) < 16
    assert len(count.read_text().split()) == 64
