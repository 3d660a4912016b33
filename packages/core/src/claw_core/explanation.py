"""What a router would do for a group, as something to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from claw_core.config.settings import AUTO, Merged, Value
from claw_core.errors import ClawError, ConfigProblems, Refused, UnknownRuntime
from claw_core.isolation import Isolation
from claw_core.known import canonical, installation
from claw_core.model import Mount, Refusal
from claw_core.request import asked_for
from claw_core.routing import Candidate, Route

if TYPE_CHECKING:
    from claw_core.router import Router


@attrs.frozen
class Explanation:
    """What would happen to a run, and why.

    Attributes:
        group: name of the group.
        merged: every setting with its origin.
        route: the decision, or None where the run would be refused.
        refusal: why it would be refused.
        candidates: the runtimes that were asked and not taken.
        trust: what the group's file asks for beyond what was accepted.
        used: whether the group's file was accepted before; None without a group.
    """

    group: str | None
    merged: Merged
    route: Route | None
    refusal: ClawError | None
    candidates: tuple[Candidate, ...]
    trust: tuple[str, ...] = ()
    used: bool | None = None

    def sentence(self) -> str:
        """The answer in one line."""
        who = f"group {self.group}" if self.group else "a run without a group"
        if self.trust:
            return f"{who}: nothing, before what its config.json asks for is accepted"
        if self.route is None and isinstance(self.refusal, ConfigProblems):
            return f"{who}: nothing; {self.refusal.message}"
        if self.route is None:
            named = canonical(self.merged.settings.runtime or AUTO)
            if named != AUTO and len(self.candidates) == 1:
                refusal = self.candidates[0].refusal
                return f"{who}: nothing; {named} cannot run it: {refusal.reason}; {refusal.remedy}"
            return f"{who}: nothing; no runtime accepts it"
        level = self.route.assessment.isolation.label
        return f"{who}: {self.route.runtime} ({level}), because {self.route.why}"

    def notes(self) -> Iterator[str]:
        """What else the owner should know."""
        if self.trust:
            yield f"config.json asks for more than was accepted; see `claw trust {self.group}`:"
            yield from (f"  {change}" for change in self.trust)
        elif self.used is False:
            yield "config.json was never used; its first use accepts it as it is"
        if self.route is not None:
            yield from self.route.assessment.notes

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Setting, value and origin, of everything that is set, and of what holds without that."""
        for key, one in self._values().items():
            yield key, shown(key, one.value), one.origin

    def to_json(self) -> dict[str, Any]:
        """The same for programs."""
        route = None if self.trust else self.route
        return {
            "group": self.group,
            "runtime": route and route.runtime,
            "isolation": route and route.assessment.isolation.label,
            "axes": route and route.assessment.axes.to_json(),
            "network": route and route.assessment.network,
            "why": route and route.why,
            "refusal": self.refusal and str(self.refusal),
            "settings": {
                key: {"value": shown(key, one.value), "origin": one.origin}
                for key, one in self._values().items()
            },
            "not_taken": [
                {"runtime": one.runtime, **attrs.asdict(one.refusal)} for one in self.candidates
            ],
            "notes": list(route.assessment.notes) if route else [],
            "trust": {"used": self.used, "pending": list(self.trust)},
        }

    def _values(self) -> Mapping[str, Value]:
        """Everything that is set; the network and the runtime also where nobody set them."""
        values = dict(self.merged.values)
        if self.route is not None:
            values.setdefault("network", Value(self.route.assessment.network, "default"))
        values.setdefault("runtime", Value(AUTO, "default"))
        return dict(sorted(values.items()))


async def explain(router: Router, group: str | None = None, **asked: Any) -> Explanation:
    """Decide as a session would, start nothing, and remember nothing.

    Args:
        router: whose configuration and runtimes.
        group: name of the group.
        **asked: what `Router.session` takes, as far as it says what an instance shall be.

    Raises:
        ConfigProblems: all that is wrong in the configuration.
    """
    plan = await router.planner.plan(group, asked_for(**asked))
    merged = plan.merged
    pending = await router.planner.pending(plan)
    used = None if plan.group is None else pending is not None
    trust = tuple(pending or ())
    try:
        route = await router.route(group, **asked)
    except ClawError as error:
        return Explanation(group, merged, None, error, _candidates(error, merged), trust, used)
    return Explanation(group, merged, route, None, route.others, trust, used)


def _candidates(error: ClawError, merged: Merged) -> tuple[Candidate, ...]:
    if isinstance(error, Refused):
        return error.candidates
    if isinstance(error, ConfigProblems):
        return ()  # no runtime was asked
    name = canonical(merged.settings.runtime or AUTO)
    if isinstance(error, UnknownRuntime):
        return (Candidate(name, Refusal("it is not installed", installation(name))),)
    return (Candidate(name, Refusal(error.message, error.remedy or "see `claw doctor`")),)


def shown(key: str, value: Any) -> str:
    """A value as people write it; variables may hold what nobody should read over a shoulder."""
    if key.startswith(("env.", "secrets.")):
        return "(not shown)"
    if isinstance(value, Mount):
        return f"{value.source}{':rw' * value.writable}"
    if isinstance(value, Isolation):
        return value.label
    if isinstance(value, tuple):
        return ", ".join(value)
    if key in {"timeout", "idle_timeout"}:
        return f"{value:g}s"
    return str(value)
