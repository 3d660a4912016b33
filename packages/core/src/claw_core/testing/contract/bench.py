"""Holds checks against a runtime, each in processes of its own, and always comes to an end."""

from __future__ import annotations

import contextlib
import inspect
import signal
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from claw_core.testing.contract import (
    endings,
    files,
    keeping,
    kills,
    lifecycle,
    limits,
    processes,
    questions,
    streams,
)
from claw_core.testing.contract import teardown as teardowns
from claw_core.testing.contract.case import Case
from claw_core.testing.contract.heart import Heart
from claw_core.testing.contract.nursery import Child, Job, Nursery, NurseryGone
from claw_core.testing.contract.verdict import ENDS, STAYS, Broken, Verdict

CHECKS: dict[str, Callable[..., Any]] = {
    check.__name__: check
    for module in (
        questions,
        lifecycle,
        files,
        streams,
        endings,
        limits,
        teardowns,
        kills,
        processes,
        keeping,
    )
    for check in module.CHECKS
}
"""Every check by its name, in the order in which a runtime grows."""


@attrs.define(eq=False)
class Bench:
    """One check's place to work, from the outside of its processes.

    Attributes:
        case: the runtime.
        kills: how many owners are killed at random moments.
        snapshots: what was kept, and is to be removed by whoever knows how.
    """

    case: Case
    kills: int
    _nursery: Nursery
    snapshots: list[str] = attrs.field(factory=list)

    @classmethod
    @contextlib.contextmanager
    def open(cls, case: Case, kills: int = 4) -> Iterator[Bench]:
        """A bench with a nursery of its own."""
        with Nursery() as nursery:
            yield cls(case, kills, nursery)

    def examine(self, name: str) -> Verdict | None:
        """Hold one check against the runtime, and return the promise that it found broken.

        It returns within the deadline of the check and some seconds; what the runtime leaves behind
        is reaped once more, as far as the runtime can, and the kit's own payload ends by itself.
        """
        check = CHECKS[name]
        self.case.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            if inspect.iscoroutinefunction(check):
                self.ask(check)
            else:
                check(self)
        except Broken as error:
            self._clean()
            Heart.stop_all(self.case.directory)
            return Verdict.of(check, error)
        return None

    def start(
        self,
        work: Callable[..., Any],
        *,
        stop: str | None = None,
        pause: str | None = None,
        elsewhere: bool = False,
        **arguments: Any,
    ) -> Child:
        """Start a process with something to do; all but `arguments` are as for `Job`."""
        place = f"{work.__module__}:{work.__name__}"
        return self._nursery.start(Job(place, self.case, stop, pause, elsewhere, arguments))

    def ask(self, work: Callable[..., Any], **options: Any) -> Child:
        """Let a process do something to its end.

        Raises:
            Broken: what it found broken, or why it came to no end.
        """
        child = self.start(work, **options)
        self.judge(child, in_time=child.end(self.case.check_timeout))
        self.snapshots += child.said("snapshot")
        return child

    def judge(self, child: Child, *, in_time: bool, killed: bool = False) -> None:
        """See how a process has ended.

        Args:
            child: the process; it is killed if it has not ended.
            in_time: whether it did what it should in time.
            killed: whether it was to kill itself on the way.

        Raises:
            Broken: what it found broken, or why it came to no end.
        """
        inside = child.hook
        child.kill()
        if child.found is not None:
            raise child.found
        where = f"inside of {inside}" if inside else "outside of every hook"
        if not in_time:
            seen = f"no end within {self.case.check_timeout:g} s, {where}; its process was killed"
            raise Broken(seen, hook=inside, promise=ENDS)
        if not child.finished and not (killed and child.code == -signal.SIGKILL):
            seen = f"its process ended with {child.code}, {where}"
            raise Broken(seen, hook=inside, promise=STAYS)

    def _clean(self) -> None:
        """Let a reaper try what a check that failed could not do."""
        with contextlib.suppress(Broken, NurseryGone):
            self.ask(kills.reap, seconds=self.case.hook_timeout)
