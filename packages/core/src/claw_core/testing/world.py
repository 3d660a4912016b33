"""What is there while a schedule is run, and the rules that nobody may break.

The rules are S1, S2, S3, S5, S7 and S8 of the teardown guarantee; they are checked whenever
something happens that could break them, on what is really there and never on what core says.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import attrs

from claw_core import metadata
from claw_core.entry import held, parse
from claw_core.ledger import Ledger
from claw_core.testing.clock import Killed
from claw_core.testing.disk import Inode
from claw_core.testing.faults import Boundary, Faults, Kind
from claw_core.testing.machine import Machine, Process

if TYPE_CHECKING:
    from claw_core.testing.backend import Work

Mode: TypeAlias = Literal["server", "tool"]
"""Who does what a client asks for: a server that carries on without its client, within the settle
time; or a tool, a child that carries on as long as it likes and holds the op-lock meanwhile."""

INSTALL: Final = "5e1f5e1f"
OTHERS: Final = ("claw-0ddba11e-000000000000", f"claw-{INSTALL}-0000000000ff")
"""Instances that nobody here may touch: of another installation, and of ours without an entry,
which only those may who are asked to adopt."""
STATE: Final = Path("/dev/null/claw")
"""The state directory; where it is no real file can be."""
DIRECTORY: Final = str(STATE / "instances")
SNAPSHOTS: Final = str(metadata.directory(STATE))
SETTLE: Final = 0.15
"""Seconds within which the server does what it was asked for."""
LATENCY: Final = 0.05
"""Seconds that anything takes at most, unless it is late."""
LINGER: Final = 0.6
"""Seconds for which a tool can be at work; nothing promises that it is less than any time."""
KEPT: Final = 1e7
"""Seconds for which owners keep what they keep: longer than a world lasts."""


@attrs.frozen
class Violation:
    """A rule that was broken, and how."""

    rule: str
    what: str
    time: float


@attrs.define(eq=False)
class World:
    """Everything that is there while a schedule is run.

    Attributes:
        mode: how the backend works.
        machine: its processes, their files, and the time.
        faults: what has still to happen at the boundaries of hooks.
        down: whether the backend answers nobody.
        adopting: whether anybody was asked to adopt.
        existing: instances, each with whether its payload runs.
        snapshots: those for inspection.
        coming: creations that were asked for and are still to come, by name.
        works: everything that was asked for and is still to be done.
        reached: the boundaries that were come to, in their order.
        violations: the rules that were broken.
        trace: what happened, where somebody wants to know.
        last_fault: the time of the last fault that has struck.
        emptied: the time at which the last instance of ours was gone.
    """

    mode: Mode
    machine: Machine
    faults: dict[Boundary, Kind]
    trace: list[str] | None = None
    down: bool = False
    adopting: bool = False
    existing: dict[str, bool] = attrs.field(factory=lambda: dict.fromkeys(OTHERS, False))
    snapshots: set[str] = attrs.field(factory=set)
    coming: Counter[str] = attrs.field(factory=Counter)
    reached: list[Boundary] = attrs.field(factory=list)
    violations: list[Violation] = attrs.field(factory=list)
    works: set[Work] = attrs.field(factory=set)
    last_fault: float = -1.0
    emptied: float = -1.0
    _ever: set[str] = attrs.field(factory=lambda: set(OTHERS))
    _calls: Counter[str] = attrs.field(factory=Counter)

    @classmethod
    def make(cls, seed: int, mode: Mode, faults: Faults, *, traced: bool = False) -> World:
        """A world in which nothing has happened yet."""
        machine = Machine(random.Random(seed))  # noqa: S311 - it must be the same every time
        machine.disk.make(str(STATE))
        machine.disk.make(DIRECTORY)
        machine.disk.make(SNAPSHOTS)
        world = cls(mode, machine, dict(faults), [] if traced else None)
        machine.unlinking = world.unlinking
        machine.writing = world.writing
        return world

    def ledger(self) -> Ledger:
        """The ledger, as a process of this world opens it."""
        return Ledger(STATE, Path(DIRECTORY), INSTALL)

    def note(self, text: str) -> None:
        """Add to the trace; callers with an expensive text ask first whether there is one."""
        if self.trace is not None:
            process = self.machine.timeline.current
            name = process.name if isinstance(process, Process) else "-"
            self.trace.append(f"{self.machine.timeline.now:10.4f}  {name:<12} {text}")

    def violate(self, rule: str, what: str) -> None:
        """Note that a rule is broken."""
        self.note(f"BREAKS {rule}: {what}")
        self.violations.append(Violation(rule, what, self.machine.timeline.now))

    def process(self) -> Process:
        """The process that is at work.

        Raises:
            Killed: it is dead, and what it does has no effect.
        """
        process = self.machine.timeline.current
        assert isinstance(process, Process)
        if process.dead:
            raise Killed
        return process

    def asked_so_far(self) -> int:
        """How often the backend was asked for anything."""
        return len(self.reached)

    def stale(self) -> frozenset[str]:
        """A listing that also shows what is gone."""
        return frozenset(self._ever)

    def ours(self) -> list[str]:
        """The instances that must be gone in the end."""
        return [name for name in self.existing if name not in OTHERS]

    @property
    def others(self) -> set[str]:
        """The instances that are not to be touched."""
        return {OTHERS[0]} if self.adopting else {*OTHERS}

    def entry(self, name: str) -> tuple[str, Inode] | None:
        """The entry of an instance."""
        return next(self.entries(name), None)

    def entries(self, name: str) -> Iterator[tuple[str, Inode]]:
        """The entries of an instance; several where several adopt it."""
        identity = name[-12:]
        for file, inode in self.machine.disk.names[DIRECTORY].items():
            if file.startswith(identity) and file.endswith(".jsonl"):
                yield file, inode

    def asked(self, process: Process, hook: str, name: str) -> Kind | None:
        """Count a call, check that it may be made, and return the fault that strikes it."""
        self._calls[hook] += 1
        boundary = (hook, self._calls[hook])
        self.reached.append(boundary)
        kind = self.faults.pop(boundary, None)
        if self.trace is not None:
            self.note(f"{hook} #{self._calls[hook]} {name}" + (f": {kind}" if kind else ""))
        if kind is not None:
            self.last_fault = self.machine.timeline.now
        if hook != "list_instances":
            holders = [self.machine.holder(inode) for _, inode in self.entries(name)]
            if process not in holders:
                rule = "S7" if hook == "prepare" and not holders else "S2"
                self.violate(rule, f"{process.name} calls {hook} of {name} without its lease")
            for other in holders:
                if isinstance(other, Process) and other is not process and other.owns:
                    self.violate("S2", f"{process.name} calls {hook} of {name}, whose owner lives")
        return kind

    def unlinking(self, path: str) -> None:
        """S3: an entry goes only when its instance is gone, and cannot come any more.

        One whose author does not know that it is durable does not count yet: who adopts takes it
        back where that fails, also where somebody else has made it durable by chance.
        """
        if path.endswith(".jsonl") and path.startswith(DIRECTORY):
            file = path[len(DIRECTORY) + 1 :]
            name = f"claw-{INSTALL}-{file[:12]}"
            self.note(f"forgets {name}")
            durable = self.machine.disk.durable[DIRECTORY].get(file)
            taken_back = durable and durable.author is self.process() and not durable.counts
            if name in self.existing and durable and not taken_back:
                self.violate("S3", f"{name} is forgotten while it exists")
            if self.coming[name] > 0:
                self.violate("S3", f"{name} is forgotten while its creation is in flight")

    def writing(self, inode: Inode) -> None:
        """S8: nobody but its owner has anything to say of what is kept."""
        process = self.process()
        if b'"held"' in inode.data and not process.owns:
            for name, kept in self.kept().items():
                if kept is inode:
                    self.violate("S8", f"{process.name} takes {name}, which is kept")

    def create(self, name: str) -> None:
        """Make an instance. S1: its entry is durable. S5: it never existed before."""
        self.note(f"{name} comes to light")
        entry = self.entry(name)
        if entry is None:
            self.violate("S1", f"{name} exists without an entry")
        else:
            file, inode = entry
            durable = self.machine.disk.durable[DIRECTORY].get(file) is inode
            if not durable or b"\n" not in inode.synced:
                self.violate("S1", f"the entry of {name} would not survive a power loss")
        if name in self._ever:
            self.violate("S5", f"{name} is created a second time")
        self._ever.add(name)
        self.existing[name] = False

    def run(self, name: str) -> None:
        """Start the payload of an instance. S5: it has only one.

        Raises:
            FileNotFoundError: there is no such instance.
        """
        if name not in self.existing:
            raise FileNotFoundError(f"no such instance: {name}")
        if self.existing[name]:
            self.violate("S5", f"{name} has a second payload")
        self.existing[name] = True

    def delete(self, name: str) -> None:
        """Delete an instance, if it is there."""
        if self.existing.pop(name, None) is not None:
            self.note(f"{name} is deleted")
            self.emptied = self.machine.timeline.now

    def stop(self, name: str) -> None:
        """End the payload of an instance.

        Raises:
            FileNotFoundError: there is no such instance.
        """
        if name not in self.existing:
            raise FileNotFoundError(f"no such instance: {name}")
        self.existing[name] = False

    def keep(self, name: str) -> None:
        """Keep a disk. S8: that one may come is noted, durably."""
        instance = name.partition("@")[0]
        noted = self.machine.disk.durable[SNAPSHOTS]
        if not any(file.startswith(instance) and inode.synced for file, inode in noted.items()):
            self.violate("S8", f"the snapshot {name} would be forgotten in a power loss")
        self.snapshots.add(name)

    def kept(self) -> dict[str, Inode]:
        """The instances that are kept on purpose, and are nobody's, with their entries."""
        found = {}
        for file, inode in self.machine.disk.names[DIRECTORY].items():
            if file.endswith(".jsonl") and b'"held"' in inode.data:
                content = parse(bytes(inode.data), file.removesuffix(".jsonl"), INSTALL)
                if held(content.state, content.detail) and content.intent is not None:
                    found[content.intent.name] = inode
        return found

    def check_kept(self) -> None:
        """S8: what is kept is there, and nothing of it runs."""
        for name in self.kept():
            if name not in self.existing:
                self.violate("S8", f"{name} is kept, and it is gone")
            elif self.existing[name]:
                self.violate("S8", f"{name} is kept, and it runs")

    def reboot(self, choose: Callable[[int], int] | None) -> None:
        """Start the machine again: every process ends, and with it what was not done yet.

        Args:
            choose: the machine loses power, so what was not synced may be lost; None: it is shut
                down in good order, which syncs everything.
        """
        self.note("REBOOT" if choose is None else "POWER LOSS")
        for process in self.machine.processes:
            self.machine.kill(process)
        for work in tuple(self.works):
            work.abort()
        self.existing = dict.fromkeys(self.existing, False)
        self.machine.boot += 1
        if choose is not None:
            self.machine.disk.lose_power(choose)
