"""Durations and sizes, as people write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as some

from claw_core.errors import ConfigError
from claw_core.units import duration, size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("250ms", 0.25)],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "count"),
    [("1024", 1024), ("2g", 2 << 30), ("512M", 512 << 20), ("1.5 KiB", 1536), ("1tb", 1 << 40)],
)
def test_sizes_are_bytes(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "soon", "10 parsecs", "-1", "0", "0s", "1m2", "nan", "inf"])
def test_what_is_no_duration_is_named(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        duration(text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize("text", ["", "lots", "2gg", "-1", "0", "1.2.3", "9" * 40])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        size(text)
    assert repr(text) in caught.value.message


@given(some.text())
def test_no_text_crashes_a_parser(text: str) -> None:
    for parse in (duration, size):
        with contextlib.suppress(ConfigError):
            assert parse(text) > 0
