"""The tables of the runtimes' own settings are what the code takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from claw_core import units
from claw_runtime_apple.settings import Settings as Apple
from claw_runtime_docker.settings import Settings as Docker
from claw_runtime_tart.settings import Settings as Tart

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
ROW = re.compile(r"^\| `(\w+)` \| (.*?) \| (.*?) \| .* \|$", re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "settings"), [("apple", Apple), ("docker", Docker), ("tart", Tart)]
)
def test_every_setting_is_described_with_its_default(name: str, settings: type[Any]) -> None:
    page = (REFERENCE / f"{name}.md").read_text()
    section = page.split("\n## Settings\n")[1].split("\n## ")[0]
    described = {key: default for key, _, default in ROW.findall(section)}
    fields = {field.name: field.default for field in attrs.fields(settings)}
    assert described.keys() == fields.keys()
    for key, value in fields.items():
        assert says(described[key], value), (key, described[key], value)


def says(cell: str, value: object) -> bool:
    """Whether a cell gives a value as TOML has it; None is what another room decides."""
    text = cell.strip("`")
    if isinstance(value, bool):
        return text == str(value).lower()
    if isinstance(value, tuple):
        return text == "[]"
    if isinstance(value, int | float):
        return units.size(text.split(",")[0]) == value
    return value is None or text.strip('"') == str(value)
