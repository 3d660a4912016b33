"""Which runtime a run gets: the chosen one, or the first of the preferred that accepts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from claw_core.errors import ClawError, Refused
from claw_core.model import Assessment, Refusal, Spec

if TYPE_CHECKING:
    from claw_core.registry import Registry
    from claw_core.relay import Relay

PREFER = ("apple", "tart", "docker", "local")
"""The order in which `auto` asks, from the strongest isolation to the weakest."""


@attrs.frozen
class Candidate:
    """A runtime that was asked, and why it was not taken."""

    runtime: str
    refusal: Refusal


@attrs.frozen
class Route:
    """The decision for one run.

    Attributes:
        runtime: name of the runtime.
        settings: what the runtime is made from.
        assessment: what the instance will get.
        why: where the decision comes from, in words.
        others: the runtimes that were asked before and refused.
    """

    runtime: str
    settings: Mapping[str, Any]
    assessment: Assessment
    why: str
    others: tuple[Candidate, ...] = ()


async def choose(
    registry: Registry,
    spec: Spec,
    runtime: str | None = None,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    prefer: Sequence[str] = PREFER,
) -> tuple[Route, Relay]:
    """Return a route whose runtime accepts exactly this spec.

    A runtime that was asked for by name is never replaced by another one.

    Raises:
        UnknownRuntime: the named runtime is not installed.
        PluginError: the named runtime cannot be loaded.
        Refused: no candidate accepts the spec; lists every one with its reason and remedy.
    """
    if runtime is not None:
        relay = registry.resolve(runtime, (settings or {}).get(runtime, {}))
        answer = await relay.assess(spec)
        if isinstance(answer, Refusal):
            raise Refused(answer.reason, runtime=relay.name, phase="assess", remedy=answer.remedy)
        return Route(relay.name, relay.settings, answer, "asked for by name"), relay
    refused: list[Candidate] = []
    installed = registry.names()
    for name in (name for name in prefer if name in installed):
        try:
            relay = registry.resolve(name, (settings or {}).get(name, {}))
            answer = await relay.assess(spec)
        except ClawError as error:
            refusal = Refusal(error.message, error.remedy or "see `claw runtimes`")
            refused.append(Candidate(name, refusal))
            continue
        if isinstance(answer, Refusal):
            refused.append(Candidate(name, answer))
            continue
        why = f"the first of {', '.join(prefer)} that accepts this run"
        return Route(name, relay.settings, answer, why, tuple(refused)), relay
    raise Refused(
        "no installed runtime accepts this run"
        + "".join(f"\n  {one.runtime}: {one.refusal.reason}" for one in refused),
        phase="assess",
        remedy="; ".join(f"{one.runtime}: {one.refusal.remedy}" for one in refused)
        or "install one, for instance: pip install claw-runtime-docker",
    )
