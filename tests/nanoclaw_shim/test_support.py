"""Which group works on which runtime: in code, in the documentation, and in effect."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest

from claw_core.errors import Refused
from claw_core.known import KNOWN
from claw_nanoclaw.commands import command
from claw_nanoclaw.shim import support
from claw_nanoclaw.shim.layout import LAYOUTS
from cli.support import entries
from nanoclaw_shim import recordings
from nanoclaw_shim.world import World

PAGE = Path(__file__).parents[2] / "docs/how-to/nanoclaw-shim.md"


def test_the_table_is_whole() -> None:
    assert set(support.TABLE) == set(KNOWN)
    assert all(tuple(row) == LAYOUTS for row in support.TABLE.values())


def test_the_page_has_the_table() -> None:
    found = re.findall(
        r"^\| `(\w+)` \| (v1|v1 main|v2) \| (\w+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE
    )
    assert found == list(support.rows())


def test_every_command_and_option_is_described() -> None:
    page = (PAGE.parents[1] / "reference/cli.md").read_text()
    section = page.split("## `claw nanoclaw`")[1].split("\n## ")[0]
    options = set()
    for name, one in command.commands.items():
        assert f"`claw nanoclaw {name}`" in section
        options |= {
            option for part in one.params if isinstance(part, click.Option) for option in part.opts
        }
    assert set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE)) == options


def test_every_test_that_is_named_as_evidence_exists() -> None:
    page = (PAGE.parents[1] / "explanation/nanoclaw.md").read_text()
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    named = re.findall(r"\b(?:test_\w+\.py::)?(test_\w+)`", page)
    assert len(named) > 8
    for name in named:
        assert f"def {name}(" in tests, name


def test_the_command_shows_the_table(base: Path) -> None:
    world = World.make(base, None, "family")
    shown = json.loads(world.claw("nanoclaw", "table", "--json").stdout)
    assert [tuple(row.values()) for row in shown] == list(support.rows())
    assert "v1 main" in world.claw("nanoclaw", "table").stdout


def test_a_runtime_that_nobody_knows_is_refused() -> None:
    assert support.support("v1", "podman-machine").way == "no"
    with pytest.raises(Refused, match="cannot run on podman-machine") as caught:
        support.require("v1", "podman-machine", "family")
    assert "docker, apple, tart, local" in str(caught.value.remedy)


@pytest.mark.parametrize("runtime", ["tart", "local"])
def test_what_cannot_work_is_refused_before_anything_starts(
    base: Path, runtime: str, state: Path
) -> None:
    world = World.make(base, None, "family", toml=f'[groups.family]\nruntime = "{runtime}"\n')
    done = world.docker(*recordings.v2(world.root, "family"))
    assert done.returncode == 125
    assert f"a group of layout v2 cannot run on {runtime}" in done.stderr.decode()
    assert "give family one of docker in claw.toml" in done.stderr.decode()
    assert entries(state) == []
    assert world.names() == []
