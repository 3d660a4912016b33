"""Names are not reused, one process at a time has a lease, and every end has one exit code."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, cast

import attrs
from hypothesis import given
from hypothesis import strategies as st

from claw_core import errors, vfs
from claw_core.cli.progress import ProgressLine
from claw_core.cli.render import failures
from claw_core.cli.run import Outcome
from claw_core.entry import State, parse
from claw_core.errors import ClawError, LedgerUnavailable, TeardownFailed
from claw_core.intent import Intent
from claw_core.lease import Lease
from claw_core.ledger import Ledger
from claw_core.locks import InFlight
from claw_core.model import Exit, instance_name
from claw_core.runs import Record
from claw_core.testing.clock import Killed
from claw_core.testing.disk import Opened
from claw_core.testing.machine import Process
from claw_core.testing.world import DIRECTORY, INSTALL, World

HEX = "0123456789abcdef"
INSTALLS = st.text(HEX, min_size=8, max_size=8)
IDENTITIES = st.text(HEX, min_size=32, max_size=32)
TEXTS = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
INTENTS = st.builds(
    Intent,
    identity=IDENTITIES,
    install=INSTALLS,
    runtime=TEXTS,
    settings=st.dictionaries(TEXTS, JSON, max_size=3),
    group=st.none() | TEXTS,
    image=st.none() | TEXTS,
    settle=st.floats(0, 1e6),
    boot=TEXTS,
    owner=st.integers(0, 1 << 30),
    started=st.floats(0, 1e12),
    digest=TEXTS,
)
STATES: tuple[State, ...] = ("running", "stopping", "limbo", "quarantined", "held", "gone")


# Names.


@given(INSTALLS, st.lists(TEXTS, max_size=3))
def test_a_name_says_whose_it_is_and_is_fit_for_every_backend(
    install: str, argv: list[str]
) -> None:
    intent = Intent.new(install, "x", argv=argv)
    assert re.fullmatch(rf"claw-{install}-[0-9a-f]{{12}}", intent.name)
    assert intent.name.endswith(intent.identity[:12])
    assert len(intent.name) <= 63  # a label of the DNS, which is what a host name has to be


@given(INSTALLS, INSTALLS, IDENTITIES, IDENTITIES)
def test_names_of_two_installations_are_never_the_same(
    one: str, other: str, identity: str, another: str
) -> None:
    same = instance_name(one, identity) == instance_name(other, another)
    assert same == ((one, identity[:12]) == (other, another[:12]))
    if one != other:
        assert not instance_name(one, identity).startswith(f"claw-{other}-")


def test_identities_are_not_minted_twice() -> None:
    assert len({Intent.new(INSTALL, "x").identity[:12] for _ in range(2_000)}) == 2_000


# Entries.


@given(INTENTS)
def test_an_intent_comes_back_as_it_was(intent: Intent) -> None:
    line = intent.to_line()
    assert line.count(b"\n") == 1
    assert Intent.from_line(line.decode().rstrip("\n")) == intent


@given(INTENTS, st.binary(max_size=300), st.integers(0, 600), st.integers(0, 40))
def test_whatever_is_in_an_entry_it_is_read_or_said_to_be_damaged(
    intent: Intent, noise: bytes, cut: int, blank: int
) -> None:
    whole = intent.to_line()
    for data in (noise, whole[:cut] + noise, whole[:cut] + bytes(blank), whole + noise):
        content = parse(data, intent.identity, intent.install)
        assert (content.intent is None) == (content.error is not None)
        if data.startswith(whole):
            assert content.intent == intent
    assert parse(whole, intent.identity[::-1] + "x", intent.install).intent is None
    assert parse(whole, intent.identity, "another").intent is None


# Leases.

Step = tuple[int, str]
STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(
            ("acquire", "claim", "scan", "op", "child", "ended", "abandon", "release", "kill")
        ),
    ),
    max_size=25,
)


@attrs.define(eq=False)
class Some:
    """A process with the leases that it thinks it has."""

    process: Process
    ledger: Ledger
    leases: list[Lease] = attrs.field(factory=list)


@contextlib.contextmanager
def at_work(world: World, one: Some) -> Iterator[None]:
    world.machine.timeline.current = one.process
    try:
        yield
    finally:
        world.machine.timeline.current = None


async def _idle() -> None:
    """Do nothing."""


@given(STEPS)
def test_one_process_at_a_time_has_a_lease_and_the_dead_have_none(steps: list[Step]) -> None:
    world = World.make(0, "tool", {})
    machine = world.machine
    with vfs.substitute(machine.calls()):
        people = [_born(world) for _ in range(3)]
        children: list[Opened] = []
        for number, step in steps:
            one = people[number]
            if step == "kill":
                machine.kill(one.process)
                people[number] = _born(world)
                continue
            with at_work(world, one):
                _do(world, one, step, children)
            held = [lease.name for some in people for lease in some.leases]
            assert len(held) == len(set(held)), "two processes have one lease"
            for some in people:
                for lease in some.leases:
                    found = world.entry(lease.name)
                    assert found is not None, "its entry is gone under its holder"
                    assert machine.holder(found[1]) is some.process
        for opened in children:
            machine.disk.close(opened)
        for some in people:
            machine.kill(some.process)
        last = _born(world)
        with at_work(world, last):
            for entry in last.ledger.scan():
                assert not entry.alive
                claimed = last.ledger.claim(entry)
                assert claimed is not None
                claimed.release()
            last.ledger.scan()
        machine.kill(last.process)
    assert machine.disk.names[DIRECTORY] == {}


def _born(world: World) -> Some:
    return Some(world.machine.spawn("one", _idle), world.ledger())


def _do(world: World, one: Some, step: str, children: list[Opened]) -> None:
    if step == "acquire":
        one.leases.append(one.ledger.acquire(Intent.new(INSTALL, "x")))
    elif step == "claim":
        for entry in one.ledger.scan():
            with contextlib.suppress(InFlight):
                lease = one.ledger.claim(entry)
                assert lease is None or not entry.alive
                if lease is not None:
                    one.leases.append(lease)
    elif step == "scan":
        for entry in one.ledger.scan():
            assert entry.error is None
    elif step == "op":
        for lease in one.leases:
            assert lease.op_lock() == lease.op_lock()
    elif step == "child":
        children.extend(world.machine.inherit(lease.op_lock()) for lease in one.leases)
    elif step == "ended" and children:
        world.machine.disk.close(children.pop())
    elif step == "abandon" and one.leases:
        one.leases.pop().abandon()
    elif step == "release" and one.leases:
        lease = one.leases.pop()
        lease.release()
        assert not lease.held


@given(
    st.lists(st.tuples(st.sampled_from(("fact", *STATES)), TEXTS, TEXTS), min_size=1, max_size=12)
)
def test_whoever_claims_it_reads_what_was_written(notes: list[tuple[str, str, str]]) -> None:
    world = World.make(0, "tool", {})
    with vfs.substitute(world.machine.calls()):
        owner, reaper = _born(world), _born(world)
        with at_work(world, owner):
            lease = owner.ledger.acquire(Intent.new(INSTALL, "x"))
            for what, key, value in notes:
                if what == "fact":
                    lease.record(key, value)
                else:
                    lease.mark(cast("State", what), text=value)
        world.machine.kill(owner.process)
        with at_work(world, reaper):
            claimed = reaper.ledger.claim(lease.intent.identity)
            assert claimed is not None
            assert (claimed.facts, claimed.state, claimed.detail) == (
                {key: value for what, key, value in notes if what == "fact"},
                lease.state,
                lease.detail,
            )
        world.machine.kill(reaper.process)


def test_a_dead_process_does_nothing() -> None:
    world = World.make(0, "tool", {})
    with vfs.substitute(world.machine.calls()):
        owner = _born(world)
        with at_work(world, owner):
            lease = owner.ledger.acquire(Intent.new(INSTALL, "x"))
        world.machine.kill(owner.process)
        before = dict(world.machine.disk.names[DIRECTORY])
        with at_work(world, owner):
            for use in (lease.release, lambda: lease.mark("gone"), owner.ledger.scan):
                with contextlib.suppress(Killed, LedgerUnavailable):
                    use()
        assert world.machine.disk.names[DIRECTORY] == before


# Exit codes.

ERRORS = tuple(
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ClawError)
)
KNOWN = st.lists(st.sampled_from(ERRORS).map(lambda kind: kind("it failed")), max_size=3)


@given(st.integers(-64, 255))
def test_a_status_is_a_code_or_a_signal(status: int) -> None:
    ended = Exit.from_wait(status)
    assert 0 <= ended.code <= 255
    assert ended.signal == (-status if status < 0 else None)
    assert ended.code == (status if status >= 0 else 128 - status)


@given(st.none() | st.integers(0, 255), KNOWN)
def test_the_commands_own_code_wins_unless_claw_failed(
    code: int | None, known: list[ClawError]
) -> None:
    ended = None if code is None else Exit(code)
    record = cast("Record", attrs.make_class("Ended", ["exit"])(ended))
    result = Outcome(ProgressLine(quiet=True, verbose=False), record, known).code()
    only_teardown = all(isinstance(error, TeardownFailed) for error in known)
    if not known:
        assert result == (code or 0)
    elif code and only_teardown:
        assert result == code
    else:
        assert result == known[0].exit_code
        assert result in {2, 124, 125}
    # A success is never claimed where claw failed, and a failure of the command never hidden.
    assert (result == 0) == (not known and not code)


@given(KNOWN.filter(bool), st.lists(st.booleans(), min_size=3, max_size=3))
def test_failures_keep_their_order_however_they_are_grouped(
    known: list[ClawError], deep: list[bool]
) -> None:
    parts: list[Any] = [
        ExceptionGroup("inner", [error]) if nest else error
        for error, nest in zip(known, deep, strict=False)
    ]
    group = BaseExceptionGroup("all", [*parts, ValueError("not ours")])
    assert list(failures(group)) == known
