"""Which source wins, and that a user can see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from claw_core.config.settings import Merged, Settings, Source, merge
from claw_core.isolation import Isolation
from claw_core.model import Mount

WORDS = st.sampled_from(["a", "b", "c"])
LAYERS = st.lists(
    st.builds(
        Settings,
        runtime=st.none() | WORDS,
        image=st.none() | WORDS,
        min_isolation=st.none() | st.sampled_from(list(Isolation)),
        prefer=st.none() | st.lists(WORDS, min_size=1).map(tuple),
        env=st.dictionaries(WORDS, WORDS),
        secrets=st.lists(WORDS, unique=True).map(tuple),
        mounts=st.lists(st.builds(Mount, WORDS.map(Path), WORDS), unique_by=lambda m: m.target).map(
            tuple
        ),
        runtimes=st.dictionaries(WORDS, st.dictionaries(WORDS, WORDS, min_size=1)),
    ),
    max_size=5,
)


def merged(layers: list[Settings]) -> Merged:
    return merge(*(Source(layer, f"source {n}") for n, layer in enumerate(layers)))


@given(LAYERS)
def test_the_first_source_that_sets_a_thing_decides_and_is_named(layers: list[Settings]) -> None:
    result = merged(layers)
    keys = {key for layer in layers for key, _ in layer.flat()}
    assert set(result.values) == keys
    for key in keys:
        number = next(n for n, layer in enumerate(layers) if key in dict(layer.flat()))
        assert result.values[key].value == dict(layers[number].flat())[key]
        assert result.origin(key) == f"source {number}: {key}"


@given(LAYERS)
def test_the_merged_settings_set_just_these_things(layers: list[Settings]) -> None:
    result = merged(layers)
    assert dict(result.settings.flat()) == {k: one.value for k, one in result.values.items()}


@given(LAYERS, st.data())
def test_merging_in_steps_is_the_same(layers: list[Settings], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(layers)))
    parts = [merged(layers[:cut]).settings, merged(layers[cut:]).settings]
    assert same(merged(parts).settings, merged(layers).settings)


@given(LAYERS)
def test_what_a_weaker_source_adds_changes_nothing_that_was_set(layers: list[Settings]) -> None:
    before, after = merged(layers[:-1]).values, merged(layers).values
    assert {key: after[key] for key in before} == before


def same(left: Settings, right: Settings) -> bool:
    """Equal, whatever the order of things that are told apart by name."""
    return dict(left.flat()) == dict(right.flat())


def test_every_setting_can_be_merged() -> None:
    filled: dict[str, Any] = {field.name: "x" for field in attrs.fields(Settings)}
    filled |= {"mounts": (Mount(Path("/a"), "/b"),), "secrets": ("S",), "env": {"A": "1"}}
    filled |= {"runtimes": {"local": {"engine": "guard"}}}
    settings = Settings(**filled)
    assert merged([settings]).settings == settings
