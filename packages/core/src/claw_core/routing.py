"""Which runtime a run gets: the named one, one as strong in its place, or the first that fits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from claw_core.config.settings import AUTO, NOTHING, PREFER, Merged
from claw_core.errors import ClawError, Refused, UnknownRuntime
from claw_core.isolation import Isolation
from claw_core.known import KNOWN, canonical, installation
from claw_core.model import Assessment, Refusal, Spec

if TYPE_CHECKING:
    from claw_core.relay import Relay

UNASKED = Isolation.GUARD
"""The floor where nobody sets one: nothing runs without any isolation unless somebody says so."""


class Relays(Protocol):
    """Gives the relay of a runtime that is made from these settings."""

    def __call__(self, name: str, settings: Mapping[str, Any], /) -> Relay:
        """Return it, or raise what `Registry.resolve` raises."""
        ...


@attrs.frozen
class Candidate:
    """A runtime that was asked, and why it was not taken."""

    runtime: str
    refusal: Refusal

    def redacted(self, redact: Callable[[str], str]) -> Candidate:
        """The same without what must not be said."""
        refusal = Refusal(redact(self.refusal.reason), redact(self.refusal.remedy))
        return Candidate(self.runtime, refusal)


@attrs.frozen
class Route:
    """The decision for one run.

    Attributes:
        runtime: name of the runtime.
        settings: what the runtime is made from.
        assessment: what the instance will get.
        why: where the decision comes from, in words.
        spec: what exactly was assessed.
        merged: every setting with its origin.
        others: the runtimes that were asked before and refused.
    """

    runtime: str
    settings: Mapping[str, Any]
    assessment: Assessment
    why: str
    spec: Spec = Spec()
    merged: Merged = attrs.field(default=NOTHING, repr=False)
    others: tuple[Candidate, ...] = ()


async def choose(
    relays: Relays, spec: Spec, merged: Merged, needs: Sequence[str] = ()
) -> tuple[Route, Relay]:
    """Return a route whose runtime accepts exactly this spec, with no less isolation than asked.

    Args:
        relays: gives the relay of a runtime.
        spec: what is asked for.
        merged: every setting with its origin.
        needs: optional hooks that the runtime must have.

    Raises:
        UnknownRuntime: the named runtime is not installed, and nothing may take its place.
        PluginError: the same, and it cannot be loaded.
        Refused: no candidate accepts the spec; lists every one with its reason and remedy.
    """
    refused: list[Candidate] = []
    floor = _floor(merged)
    named = canonical(merged.settings.runtime or AUTO)
    names = _names(merged)
    for name in names:
        settings = table(merged, name)
        try:
            relay = relays(name, settings)
            answer = _lacking(relay, needs) or await relay.assess(spec)
            if isinstance(answer, Assessment) and answer.isolation < floor:
                answer = _too_weak(answer, floor, merged)
            if isinstance(answer, Assessment) and spec.network == "none" != answer.network:
                answer = Refusal("it cannot do without a network", "choose another runtime")
            if isinstance(answer, Assessment):
                why = _why(merged, name, refused)
                route = Route(name, relay.settings, answer, why, spec, merged, tuple(refused))
                return route, relay
        except ClawError as error:
            if len(names) == 1:
                raise
            answer = _refusal(error, name)
        refused.append(Candidate(name, answer))
        if name == named and len(names) > 1:
            floor = max(floor, await _level(relays, name, settings))
    raise _refused(refused)


def _lacking(relay: Relay, needs: Sequence[str]) -> Refusal | None:
    for hook in needs:
        if not relay.supports(hook):
            what = {"snapshot": "keeps no snapshots", "stop": "cannot keep an instance"}
            remedy = "do without, or choose another runtime"
            return Refusal(f"it {what.get(hook, f'has no {hook}')}", remedy)
    return None


def table(merged: Merged, name: str) -> Mapping[str, Any]:
    """What a runtime is made from."""
    return merged.settings.runtimes.get(name, {})


def _names(merged: Merged) -> list[str]:
    """The candidates, in the order in which they are asked."""
    settings = merged.settings
    if settings.runtime is None or settings.runtime == AUTO:
        wanted = settings.prefer or PREFER
    else:
        wanted = (settings.runtime, *(settings.fallback or ()))
    return list(dict.fromkeys(map(canonical, wanted)))


def _floor(merged: Merged) -> Isolation:
    asked = merged.settings.min_isolation
    return UNASKED if asked is None else asked


async def _level(relays: Relays, name: str, settings: Mapping[str, Any]) -> Isolation:
    """The isolation that whoever names a runtime counts on: what it gives here, or at best."""
    with contextlib.suppress(ClawError):
        description = await relays(name, settings).describe()
        if description.available and description.isolation > Isolation.NONE:
            return description.isolation
    return KNOWN[name].best if name in KNOWN else Isolation.VM


def _refusal(error: ClawError, name: str) -> Refusal:
    if isinstance(error, UnknownRuntime):
        return Refusal("it is not installed", installation(name))
    return Refusal(error.message, error.remedy or "see `claw runtimes`")


def _too_weak(answer: Assessment, floor: Isolation, merged: Merged) -> Refusal:
    asked = merged.settings.min_isolation
    where = merged.origin("min_isolation")
    if asked is not None and asked >= floor:
        return Refusal(
            f"it gives {answer.isolation.label}, below the floor {floor.label} ({where})",
            "install a stronger runtime, or lower min_isolation",
        )
    if floor > UNASKED:
        return Refusal(
            f"it gives {answer.isolation.label}, and {merged.settings.runtime} is {floor.label}",
            f"name a fallback with {floor.label} or stronger",
        )
    return Refusal("it isolates nothing", 'set min_isolation = "none" if that is what you want')


def _why(merged: Merged, name: str, before: list[Candidate]) -> str:
    settings = merged.settings
    if settings.runtime is None or settings.runtime == AUTO:
        return f"the first of {', '.join(_names(merged))} that accepts this run"
    origin = merged.origin("runtime")
    if before:
        return f"in place of {before[0].runtime} ({origin}), as fallback allows"
    return f"{name} is asked for ({origin})"


def _refused(candidates: list[Candidate]) -> Refused:
    if len(candidates) == 1:
        (one,) = candidates
        error = Refused(
            one.refusal.reason, runtime=one.runtime, phase="assess", remedy=one.refusal.remedy
        )
    else:
        error = Refused(
            "no runtime accepts this run"
            + "".join(
                f"\n    {one.runtime}: {one.refusal.reason} ({one.refusal.remedy})"
                for one in candidates
            ),
            phase="assess",
            cleaned="nothing was started",
            remedy="follow one of the remedies above, or see `claw explain`",
        )
    error.candidates = tuple(candidates)
    return error
