"""What the reference says of the conformance kit is what the kit is."""

from __future__ import annotations

import re
from pathlib import Path

from claw_core.testing import RuntimeContract
from claw_core.testing.contract import verdict
from claw_core.testing.contract.bench import CHECKS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/testing.md").read_text()


def table(title: str) -> dict[str, list[str]]:
    """The rows of a section's table, by their first column."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", section, re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in rows}


def test_every_attribute_is_described_with_its_default() -> None:
    attributes = RuntimeContract.__annotations__
    described = table("Attributes")
    assert list(described) == list(attributes)
    said = " ".join((RuntimeContract.__doc__ or "").split())
    for name, (default, meaning) in described.items():
        value = getattr(RuntimeContract, name, None)
        assert default == ("" if name == "runtime" else f"`{value!r}`")
        assert f"{name}: {meaning.replace('`', '')}" in said.replace("`", ""), name


def test_every_fixture_that_is_to_be_overridden_is_described() -> None:
    fixtures = {
        name
        for name, value in vars(RuntimeContract).items()
        if type(value).__name__ == "FixtureFunctionDefinition"
    }
    assert set(table("Fixtures")) == fixtures - {"nursery", "bench"}


def test_every_check_is_described_with_its_hook_and_its_promise() -> None:
    described = table("Checks")
    assert list(described) == [f"test_{name}" for name in CHECKS]
    for name, check in CHECKS.items():
        hook, promise = described[f"test_{name}"]
        assert hook == f"[{verdict.hook(check)}](hooks.md#{verdict.anchor(verdict.hook(check))})"
        assert promise == verdict.promise(check)
        assert hasattr(RuntimeContract, f"test_{name}")
    for promise in (verdict.ENDS, verdict.ROOM, verdict.FAULTS, verdict.STAYS, verdict.LOADS):
        assert f"- {promise}" in PAGE


def test_the_place_that_a_failure_names_exists() -> None:
    page = (ROOT / verdict.PAGE).read_text()
    titles = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    hooks = {verdict.hook(check) for check in CHECKS.values()} | {"prepare", "start", "download"}
    assert {verdict.anchor(hook) for hook in hooks} <= anchors
