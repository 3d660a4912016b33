"""What core gives a backend: tools that end, facts that last, secrets that do not leak."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from claw_core import events
from claw_core.errors import ConfigError, RuntimeFault
from claw_core.host import OUTPUT_LIMIT, Host
from claw_core.intent import Intent
from claw_core.ledger import Ledger
from claw_core.locks import InFlight


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
