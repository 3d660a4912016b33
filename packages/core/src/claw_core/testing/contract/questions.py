"""Checks of what a runtime says about itself: honest, cheap, and without side effects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import attrs

from claw_core.isolation import Axes, Extent
from claw_core.model import Assessment, Mount, Refusal, Resources, Spec
from claw_core.testing.contract.stage import Stage
from claw_core.testing.contract.verdict import Broken, about

_ORDER: Final = (Extent.NONE, Extent.PARTIAL, Extent.FULL)


@about("describe")
async def it_says_what_it_offers(stage: Stage) -> None:
    """A runtime that works here says so, and what it offers at best."""
    said = await stage.runtime.describe()
    if not said.available:
        raise Broken(f"it is not available here: {said.reason} ({said.remedy})")
    if not isinstance(said.axes, Axes):
        raise Broken(f"its axes are {said.axes!r}")


@about("assess")
async def it_promises_no_more_than_it_can(stage: Stage) -> None:
    """What is assessed is no more than what is described, for every network."""
    best = await stage.runtime.describe()
    for network in (None, "none", "default"):
        spec = Spec(image=stage.case.image, network=network)
        answer = await stage.runtime.assess(spec)
        if isinstance(answer, Refusal):
            continue
        if answer.isolation > best.isolation:
            raise Broken(f"{answer.isolation.label} is promised, {best.isolation.label} described")
        for axis in attrs.fields(Axes):
            promised, offered = (getattr(one, axis.name) for one in (answer.axes, best.axes))
            if _ORDER.index(promised) > _ORDER.index(offered):
                raise Broken(f"the axis {axis.name} is promised {promised}, described {offered}")
        if network == "none" and answer.network != "none":
            raise Broken("a network is given where none may be: that takes a refusal")
        if not 0 <= answer.settle < float("inf"):
            raise Broken(f"settle is {answer.settle}")


@about("assess")
async def a_refusal_says_what_would_help(stage: Stage) -> None:
    """What a runtime cannot do it refuses with a reason and a remedy, and does not fail over it."""
    directory = stage.case.directory
    odd = (
        Spec(image="no-such-image:0"),
        Spec(image=stage.case.image, network="none"),
        Spec(image=stage.case.image, mounts=(Mount(directory, "/", writable=True),)),
        Spec(image=stage.case.image, mounts=(Mount(directory, "/a"), Mount(directory, "/a/b"))),
        Spec(image=stage.case.image, mounts=(Mount(Path("/no/such/place"), "/a"),)),
        Spec(image=stage.case.image, resources=Resources(0.5, 1 << 28, 64)),
        Spec(image=stage.case.image, resources=Resources(1e6, 1 << 60, 1 << 40)),
    )
    for spec in odd:
        answer = await stage.runtime.assess(spec)
        if isinstance(answer, Refusal) and not (answer.reason.strip() and answer.remedy.strip()):
            raise Broken(f"{answer} for {spec}")
        if isinstance(answer, Assessment) and not isinstance(answer.axes, Axes):
            raise Broken(f"its axes are {answer.axes!r}")


@about("assess")
async def questions_have_no_side_effects(stage: Stage) -> None:
    """Describing, assessing and listing leave nothing behind."""
    await stage.runtime.describe()
    await stage.assessed(Spec(image=stage.case.image))
    found = await stage.runtime.list_instances(stage.ledger.install)
    if found:
        raise Broken(f"without any instance, {', '.join(found)} are listed", hook="list_instances")


@about("runtime")
async def its_settings_can_be_written_down(stage: Stage) -> None:
    """A runtime can be made again from its own settings, which are JSON."""
    settings = dict(stage.runtime.settings)
    try:
        written = json.loads(json.dumps(settings))
    except (TypeError, ValueError) as error:
        raise Broken(f"its settings {settings!r} are no JSON: {error}") from error
    again = dict(stage.another().settings)
    if again != written:
        raise Broken(f"made from {written!r}, its settings are {again!r}")


@about("list_instances")
async def a_listing_is_of_one_install(stage: Stage) -> None:
    """A listing shows every instance of the install that is asked for, and of no other."""
    async with stage.instance() as live:
        found = await stage.runtime.list_instances(stage.ledger.install)
        if live.name not in found:
            raise Broken(f"{live.name} runs, and is not listed")
        if odd := [name for name in found if name != live.name]:
            raise Broken(f"{', '.join(odd)} are listed, and nobody made them")
        if live.name not in await stage.another().list_instances(stage.ledger.install):
            raise Broken(f"{live.name} runs, and the runtime of another process does not list it")
        other = f"{int(stage.ledger.install, 16) ^ 1:08x}"
        if found := await stage.runtime.list_instances(other):
            raise Broken(f"{', '.join(found)} are listed for the install {other}")


CHECKS: Final = (
    it_says_what_it_offers,
    it_promises_no_more_than_it_can,
    a_refusal_says_what_would_help,
    questions_have_no_side_effects,
    its_settings_can_be_written_down,
    a_listing_is_of_one_install,
)
