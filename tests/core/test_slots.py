"""Scarce things: never more than there is, in the order of asking, given back by every death."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

import claw_core
from claw_core import events, failpoints, router
from claw_core.errors import CapacityExhausted
from claw_core.ledger import Ledger
from claw_core.model import Claim
from claw_core.redaction import Redactor
from claw_core.relay import Relay
from claw_core.routing import Route
from claw_core.slots import Slots, Ticket
from claw_core.testing.actors import Decided

VM = Claim("vm", 1, 2)

HOLDER = """
import asyncio, os, subprocess, sys
from pathlib import Path
from claw_core.model import Claim
from claw_core.slots import Slots
state, number, log, seconds = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])
def note(text):
    with log.open("a") as file:
        file.write(f"{text} {number}\\n")
async def main():
    said = []
    def waiting(text):
        if not said:
            print("waiting", flush=True)
        said.append(text)
    ticket = await Slots(state).take([Claim("vm", 1, 2)], timeout=60, waiting=waiting)
    note("in")
    print("in", flush=True)
    if seconds:
        await asyncio.sleep(seconds)
    else:
        sys.stdin.read()
    note("out")
    ticket.close()
asyncio.run(main())
"""


async def take(state: Path, *claims: Claim, timeout: float = 20.0) -> Ticket:
    return await Slots(state).take(claims or (VM,), timeout=timeout, waiting=lambda text: None)


def left(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "slots").glob("*.ticket"))


def holder(state: Path, number: int, log: Path, seconds: float = 0.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state), str(number), str(log), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_nobody_enters_beside_another(tmp_path: Path) -> None:
    """Two at a time would get one number."""
    slots = Slots(tmp_path)
    first = slots._enter((VM,))
    assert first is not None
    with (slots.directory / "entrance").open() as entrance:
        fcntl.flock(entrance, fcntl.LOCK_EX)
        assert slots._enter((VM,)) is None
    first.close()


def test_what_is_free_is_had_at_once_and_given_back(tmp_path: Path) -> None:
    async def work() -> None:
        first, second = await take(tmp_path), await take(tmp_path)
        with pytest.raises(CapacityExhausted, match="no vm became free in time, with 2 runs"):
            await take(tmp_path, timeout=0.2)
        first.close()
        first.close()
        third = await take(tmp_path)
        second.close()
        third.close()
        assert left(tmp_path) == []

    asyncio.run(work())


def test_what_can_never_be_had_is_told_at_once(tmp_path: Path) -> None:
    async def work() -> None:
        with pytest.raises(CapacityExhausted, match="9 of memory are needed, and there are 8"):
            await take(tmp_path, Claim("memory", 9, 8))

    asyncio.run(work())
    assert not (tmp_path / "slots").exists()


def test_other_things_do_not_wait(tmp_path: Path) -> None:
    async def work() -> None:
        tickets = [await take(tmp_path) for _ in range(2)]
        tickets.append(await take(tmp_path, Claim("memory", 4, 8)))
        tickets.append(await take(tmp_path, Claim("memory", 4, 8), Claim("disk")))
        with pytest.raises(CapacityExhausted, match="no vm and memory became free"):
            await take(tmp_path, VM, Claim("memory", 1, 8), timeout=0.1)
        for ticket in tickets:
            ticket.close()

    asyncio.run(work())


def test_a_small_claim_does_not_overtake_a_large_one(tmp_path: Path) -> None:
    async def work() -> None:
        order = []
        first = await take(tmp_path, Claim("memory", 6, 8))

        async def ask(amount: int) -> None:
            ticket = await take(tmp_path, Claim("memory", amount, 8))
            order.append(amount)
            ticket.close()

        large = asyncio.create_task(ask(8))
        while len(left(tmp_path)) < 2:
            await asyncio.sleep(0.01)
        small = asyncio.create_task(ask(1))
        while len(left(tmp_path)) < 3:
            await asyncio.sleep(0.01)
        await asyncio.wait([small], timeout=0.3)
        assert order == []
        first.close()
        await asyncio.gather(large, small)
        assert order == [8, 1]

    asyncio.run(work())


def test_ten_processes_on_two_slots_come_in_their_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = []
    for number in range(10):
        processes.append(holder(tmp_path, number, log, 0.05))
        said(processes[-1])  # it stands in the queue, or is through already
    assert [process.wait(60) for process in processes] == [0] * 10
    lines = [line.split() for line in log.read_text().splitlines()]
    came = [int(number) for what, number in lines if what == "in"]
    assert came == list(range(10))
    within = 0
    for what, _ in lines:
        within += 1 if what == "in" else -1
        assert 0 <= within <= 2
    assert left(tmp_path) == []
    for process in processes:
        process.communicate()


def test_the_dead_make_room_and_the_waiting_dead_are_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with contextlib.ExitStack() as stack:
        first, second, waiting, last = (
            stack.enter_context(holder(tmp_path, number, log)) for number in range(4)
        )
        # Their order is that of their tickets, and these say who stands where.
        words = [said(process) for process in (first, second, waiting, last)]
        assert sorted(words) == ["in", "in", "waiting", "waiting"]
        told = list(zip((first, second, waiting, last), words, strict=True))
        within = [process for process, word in told if word == "in"]
        without = [process for process, word in told if word != "in"]
        without[0].send_signal(signal.SIGKILL)
        without[0].wait()
        within[0].send_signal(signal.SIGKILL)
        assert said(without[1]) == "in"
        for process in (within[1], without[1]):
            process.communicate(timeout=20)
    assert len(left(tmp_path)) <= 1  # whoever looks next removes what the killed one left


def test_the_process_that_inherits_a_ticket_keeps_it(tmp_path: Path) -> None:
    async def work() -> None:
        ticket = await take(tmp_path, Claim("one"))
        with subprocess.Popen(
            ["sleep", "60"], pass_fds=(ticket.descriptor,), start_new_session=True
        ) as heir:
            ticket.close()
            with pytest.raises(CapacityExhausted):
                await take(tmp_path, Claim("one"), timeout=0.3)
            heir.kill()
        (await take(tmp_path, Claim("one"))).close()

    asyncio.run(work())


def test_a_forked_child_keeps_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        ticket = await take(tmp_path, Claim("one"))
        ready, wait = os.pipe(), os.pipe()
        if not (pid := os.fork()):
            os.write(ready[1], b"+")
            os.read(wait[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        ticket.close()
        (await take(tmp_path, Claim("one"), timeout=5)).close()
        os.write(wait[1], b"+")
        os.waitpid(pid, 0)
        for descriptor in (*ready, *wait):
            os.close(descriptor)

    asyncio.run(work())


def test_a_cancelled_wait_leaves_no_ticket(tmp_path: Path) -> None:
    async def work() -> None:
        ticket = await take(tmp_path, Claim("one"))
        task = asyncio.create_task(take(tmp_path, Claim("one")))
        while len(left(tmp_path)) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ticket.close()
        assert left(tmp_path) == []

    asyncio.run(work())


class Scarce(claw_core.Runtime):
    """A runtime whose machine is full for a while."""

    full = 0
    amount = 1
    started: ClassVar[list[str]] = []
    there: ClassVar[set[str]] = set()

    async def describe(self) -> claw_core.Description:
        return claw_core.Description(True, isolation=claw_core.Isolation.VM)

    async def assess(self, spec: claw_core.Spec) -> claw_core.Assessment:
        return claw_core.Assessment(
            claw_core.Isolation.VM, slots=(Claim("one", self.amount),), dies_with_owner=True
        )

    async def prepare(self, instance: claw_core.Instance) -> None:
        Scarce.there.add(instance.name)
        assert len(instance.host.claimed) == 1

    async def start(self, instance: claw_core.Instance) -> None:
        Scarce.started.append(instance.name)
        if Scarce.full:
            Scarce.full -= 1
            raise CapacityExhausted("the machine is full")

    async def execute(
        self, instance: claw_core.Instance, command: claw_core.Command, io: claw_core.IO
    ) -> claw_core.Exit:
        return claw_core.Exit(0)

    async def teardown(self, instance: claw_core.Instance) -> None:
        Scarce.there.discard(instance.name)

    async def list_instances(self, install: str) -> frozenset[str]:
        return frozenset(Scarce.there)


POINTS = [name for name in failpoints.POINTS if name.startswith("slots.")]


@pytest.mark.parametrize("point", POINTS)
def test_nothing_is_taken_by_whoever_is_killed_at_any_point(tmp_path: Path, point: str) -> None:
    for number in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path), str(number), str(tmp_path / "log"), "0"],
            env={**os.environ, "CLAW_FAILPOINT": f"{point}=kill"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert len(left(tmp_path)) > 0

    async def work() -> None:
        for ticket in [await take(tmp_path), await take(tmp_path)]:
            ticket.close()

    asyncio.run(work())
    assert left(tmp_path) == []


async def session(state: Path, seconds: float, told: list[str]) -> str:
    runtime = Scarce({})
    assessment = await runtime.assess(claw_core.Spec())
    decided = Decided(Route("scarce", {}, assessment, "a test"), Relay("scarce", runtime))

    def listen(event: events.Event) -> None:
        if isinstance(event, events.Notice):
            told.append(event.text)

    opened = router.Router(Ledger.open(state), decided, Redactor(), listen)  # type: ignore[arg-type]  # as far as a session asks it
    deadlines = claw_core.Deadlines(capacity=seconds)
    try:
        async with opened.session(deadlines=deadlines) as one:
            await one.run(["x"])
            return one.name
    finally:
        await opened._close()


def test_a_machine_that_is_full_is_asked_again_with_a_new_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "FULL_PAUSE", 0.01)
    monkeypatch.setattr(Scarce, "full", 2)
    Scarce.started.clear()
    told: list[str] = []
    name = asyncio.run(session(tmp_path, 20, told))
    assert len(set(Scarce.started)) == 3
    assert Scarce.started[-1] == name
    assert [text.partition(":")[0] for text in told] == ["waiting for others to end"] * 2
    assert (Scarce.there, left(tmp_path)) == (set(), [])


def test_what_the_machine_can_never_have_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scarce, "amount", 2)
    told: list[str] = []
    with pytest.raises(CapacityExhausted, match="2 of one are needed, and there are 1"):
        asyncio.run(session(tmp_path, 3600, told))
    assert told == []


def test_a_machine_that_stays_full_is_told_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "FULL_PAUSE", 0.01)
    monkeypatch.setattr(Scarce, "full", 1 << 30)
    with pytest.raises(CapacityExhausted, match="the machine is full"):
        asyncio.run(session(tmp_path, 0.2, []))
    assert (Scarce.there, left(tmp_path)) == (set(), [])
    assert os.listdir(tmp_path / "instances") == []
