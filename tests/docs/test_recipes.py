"""The pages about recipes say what the code takes."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from claw_core import units
from claw_core.config.recipe import File, Recipe, Step
from claw_core.errors import ConfigProblems

DOCS = Path(__file__).parents[2] / "docs"


def test_every_key_is_described() -> None:
    page = (DOCS / "reference/recipes.md").read_text()
    tables = [
        set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)) for part in page.split("| key |")
    ]
    for kind, described in zip((Recipe, File, Step), tables[1:], strict=True):
        assert described == {field.name for field in attrs.fields(kind)}


def test_the_example_is_a_recipe(tmp_path: Path) -> None:
    page = (DOCS / "how-to/build-an-image.md").read_text()
    path = tmp_path / "recipe.toml"
    path.write_text(page.split("```toml\n")[1].split("```")[0])
    recipe = Recipe.load(path)
    assert recipe.image == "shop-tests"
    assert recipe.files == (File(source=str(tmp_path / "pip.conf"), target="/etc/pip.conf"),)
    assert recipe.steps[0].timeout == units.duration("30m")


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('image = 1\nbse = {}\n[[steps]]\nname = "x"\nrun = ""\ntimeout = 5')
    with pytest.raises(ConfigProblems) as error:
        Recipe.load(path)
    said = str(error.value)
    for problem in ("image: expected text", "bse: unknown key; did you mean base?", "base"):
        assert problem in said
    assert "steps[0].run: expected a program" in said
    assert "steps[0].timeout: expected a duration" in said
    with pytest.raises(ConfigProblems, match="there is no such file"):
        Recipe.load(tmp_path / "absent.toml")
