"""Which runtime a run gets, and what it never gets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claw_core.config.settings import Settings, Source, merge
from claw_core.errors import ClawError, PluginError, Refused, UnknownRuntime
from claw_core.isolation import Isolation
from claw_core.model import Assessment, Description, Refusal, Spec
from claw_core.relay import Relay
from claw_core.routing import UNASKED, Route, choose
from core.model_backend import ModelRuntime


@attrs.frozen
class Machine:
    """What each runtime of a machine gives, or why it does not."""

    gives: Mapping[str, Isolation | Refusal | ClawError]
    best: Mapping[str, Isolation] = {}

    def __call__(self, name: str, settings: Mapping[str, Any], /) -> Relay:
        """Make a runtime that answers as this machine says."""
        answer = self.gives.get(name, UnknownRuntime(f"no runtime {name!r} is installed"))
        if isinstance(answer, ClawError):
            raise answer
        best = self.best.get(name)

        class Fixed(ModelRuntime):
            async def describe(self) -> Description:
                level = best or (answer if isinstance(answer, Isolation) else None)
                return Description(level is not None, isolation=level or Isolation.NONE)

        async def assess(self: Fixed, spec: Spec) -> Assessment | Refusal:
            return Assessment(answer) if isinstance(answer, Isolation) else answer

        Fixed.assess = assess  # type: ignore[assignment] # the model itself never refuses
        return Relay(name, Fixed({"world": "/nowhere"}), settings=settings)


def route(machine: Machine, **settings: Any) -> Route:
    merged = merge(Source(Settings(**settings), "claw.toml"))
    return asyncio.run(choose(machine, Spec(), merged))[0]


def refused(machine: Machine, **settings: Any) -> str:
    with pytest.raises(Refused) as error:
        route(machine, **settings)
    return str(error.value)


NO = Refusal("it has no image", "build one")
FULL = Machine(
    {
        "apple": Isolation.VM,
        "tart": Isolation.VM,
        "docker": Isolation.CONTAINER,
        "local": Isolation.SANDBOX,
    }
)


def test_auto_takes_the_first_that_accepts_and_tells_why_not_the_others() -> None:
    machine = Machine({"tart": NO, "docker": Isolation.CONTAINER, "local": Isolation.SANDBOX})
    found = route(machine)
    assert found.runtime == "docker"
    assert found.why == "the first of apple, tart, docker, local that accepts this run"
    assert [one.runtime for one in found.others] == ["apple", "tart"]
    assert found.others[0].refusal == Refusal(
        "it is not installed", "pip install claw-runtime-apple"
    )
    assert found.others[1].refusal == NO


def test_prefer_is_the_order() -> None:
    assert route(FULL, prefer=("local", "tart")).runtime == "local"
    assert route(FULL, runtime="auto", prefer=("tart",)).runtime == "tart"


def test_an_alias_is_the_runtime_it_means() -> None:
    found = route(FULL, runtime="container", runtimes={"container": {"a": 1}, "apple": {"b": 2}})
    assert (found.runtime, found.settings) == ("apple", {"a": 1, "b": 2})
    assert found.why == "apple is asked for (claw.toml: runtime)"


def test_a_named_runtime_is_not_replaced() -> None:
    machine = Machine({"tart": NO, "apple": Isolation.VM})
    assert (
        refused(machine, runtime="tart") == "tart assess: it has no image\n  what to do: build one"
    )
    with pytest.raises(UnknownRuntime):
        route(machine, runtime="docker")
    broken = PluginError("cannot be imported")
    with pytest.raises(PluginError):
        route(Machine({"tart": broken}), runtime="tart")


def test_a_fallback_takes_its_place_when_it_is_as_strong() -> None:
    found = route(Machine({"tart": NO, "apple": Isolation.VM}), runtime="tart", fallback=("apple",))
    assert found.runtime == "apple"
    assert found.why == "in place of tart (claw.toml: runtime), as fallback allows"


@pytest.mark.parametrize("tart", [NO, PluginError("cannot be imported"), None], ids=repr)
def test_a_weaker_fallback_is_refused(tart: Refusal | PluginError | None) -> None:
    gives: dict[str, Isolation | Refusal | ClawError] = {
        "docker": Isolation.CONTAINER,
        "local": Isolation.SANDBOX,
    }
    if tart is not None:
        gives["tart"] = tart
    text = refused(Machine(gives), runtime="tart", fallback=("docker", "local"))
    assert "docker: it gives container, and tart is vm" in text
    assert "local: it gives sandbox, and tart is vm" in text


def test_a_fallback_is_measured_by_what_the_named_one_gives_here() -> None:
    machine = Machine(
        {"local": NO, "other": Isolation.GUARD, "third": Isolation.SANDBOX},
        {"local": Isolation.GUARD},
    )
    assert route(machine, runtime="local", fallback=("other",)).runtime == "other"
    machine = attrs.evolve(machine, best={"local": Isolation.SANDBOX})
    found = route(machine, runtime="local", fallback=("other", "third"))
    assert found.runtime == "third"


def test_an_unknown_runtime_counts_as_the_strongest() -> None:
    machine = Machine({"local": Isolation.SANDBOX, "docker": Isolation.KERNEL})
    text = refused(machine, runtime="somebodys", fallback=("docker", "local"))
    assert "docker: it gives kernel, and somebodys is vm" in text


def test_a_floor_holds_for_every_candidate() -> None:
    text = refused(FULL, prefer=("docker", "local"), min_isolation=Isolation.VM)
    assert "docker: it gives container, below the floor vm (claw.toml: min_isolation)" in text
    assert "local: it gives sandbox, below the floor vm" in text
    assert route(FULL, min_isolation=Isolation.CONTAINER, prefer=("local", "docker")).runtime == (
        "docker"
    )
    assert "below the floor" in refused(FULL, runtime="local", min_isolation=Isolation.VM)


def test_no_isolation_at_all_is_taken_only_when_somebody_says_so() -> None:
    machine = Machine({"plain": Isolation.NONE})
    assert "it isolates nothing" in refused(machine, runtime="plain")
    assert route(machine, runtime="plain", min_isolation=Isolation.NONE).runtime == "plain"


def test_no_network_is_a_requirement_whatever_a_runtime_answers() -> None:
    async def main() -> None:
        merged = merge(Source(Settings(runtime="docker"), "claw.toml"))
        await choose(FULL, Spec(network="none"), merged)  # the model answers `default`

    with pytest.raises(Refused, match="it cannot do without a network"):
        asyncio.run(main())


def test_a_description_without_a_level_counts_as_the_strongest() -> None:
    machine = Machine({"mine": NO, "local": Isolation.SANDBOX})
    assert "mine is vm" in refused(machine, runtime="mine", fallback=("local",))


def test_a_failing_candidate_is_passed_over() -> None:
    machine = Machine({"apple": PluginError("broken", remedy="r"), "local": Isolation.SANDBOX})
    found = route(machine)
    assert found.runtime == "local"
    assert found.others[0].refusal == Refusal("broken", "r")


LEVELS = st.sampled_from(list(Isolation))
RUNTIMES = ["apple", "tart", "docker", "local", "mine"]
ANSWERS = st.dictionaries(
    st.sampled_from(RUNTIMES), LEVELS | st.just(NO) | st.just(PluginError("broken"))
)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "runtime": st.sampled_from([*RUNTIMES, "auto", "container"]),
        "prefer": st.lists(st.sampled_from(RUNTIMES), unique=True, min_size=1).map(tuple),
        "fallback": st.lists(st.sampled_from(RUNTIMES), unique=True).map(tuple),
        "min_isolation": LEVELS,
    },
)


@given(ANSWERS, st.dictionaries(st.sampled_from(RUNTIMES), LEVELS), SETTINGS)
def test_isolation_is_never_below_the_floor_or_the_choice(
    gives: dict[str, Any], best: dict[str, Isolation], settings: dict[str, Any]
) -> None:
    machine = Machine(gives, best)
    try:
        found = route(machine, **settings)
    except ClawError:
        return  # nothing was started
    level = found.assessment.isolation
    assert level == gives[found.runtime]
    assert level >= settings.get("min_isolation", UNASKED)
    named = {"container": "apple"}.get(settings.get("runtime", "auto"), settings.get("runtime"))
    if named in {None, "auto"}:
        assert found.runtime in settings.get("prefer", ("apple", "tart", "docker", "local"))
    elif found.runtime != named:
        assert found.runtime in settings["fallback"]
        description = (
            asyncio.run(machine(named, {}).describe())
            if named in gives and not (isinstance(gives[named], ClawError))
            else Description(available=False)
        )
        if description.available and description.isolation:
            assert level >= description.isolation
        else:
            strongest = {"docker": Isolation.KERNEL, "local": Isolation.SANDBOX}
            assert level >= strongest.get(str(named), Isolation.VM)


@given(ANSWERS, SETTINGS)
def test_the_same_question_has_the_same_answer(
    gives: dict[str, Any], settings: dict[str, Any]
) -> None:
    def answer() -> str:
        try:
            found = route(Machine(gives), **settings)
        except ClawError as error:
            return str(error)
        return repr((found.runtime, found.why, found.others))

    assert answer() == answer()
