"""`claw image prepare apple` makes an image whole or not at all, and leaves nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from claw_core.config.recipe import Recipe
from claw_runtime_apple.images import AGENT
from claw_runtime_apple.runtime import AppleRuntime
from cli.support import claw, entries
from runtime_apple.support import names, run, session, shell, table
from simulators.container.world import IMAGE, World

RECIPE = f"""
image = "claw-agent"
network = "none"

[base]
apple = "{IMAGE}"

[variables]
GREETING = "hello"

[runtimes.apple]
user = "0"

[[steps]]
name = "a tool"
run = '''
printf '#!/bin/sh\\necho %s\\n' "$GREETING" > /bin/tool
chmod 755 /bin/tool
cp "$FILES/package" /bin/package
echo rubbish > ~/rubbish
'''

[[verify]]
name = "the tool"
run = "tool | grep $GREETING"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/package").write_text("packed\n")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path / "recipe.toml"


def test_an_image_is_made_and_taken_where_none_is_named(
    world: World, state: Path, recipe: Path
) -> None:
    files = str(recipe.parent / "files")
    done = claw("image", "prepare", "apple", recipe, "--files", files, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["image"] == f"{AGENT}:latest"
    assert (names(world), entries(state)) == (set(), [])

    async def work() -> None:
        async with session(world, settings={"image": AGENT, "user": "1234"}) as s:
            assert await shell(s, "tool; cat /bin/package; ls -A ~ /files 2>/dev/null || true") == (
                "hello\npacked\n/home/agent:\n"
            )

    run(work())
    assert run(AppleRuntime({"command": table(world)["command"]}).describe()).details["image"] == (
        f"{AGENT} is there"
    )


def test_a_step_that_fails_makes_no_image(world: World, state: Path, recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("chmod 755", "exit 9; chmod 755"))
    done = claw("image", "prepare", "apple", recipe)
    assert done.returncode == 125
    assert b"failed with code 9" in done.stderr
    assert (names(world), entries(state)) == (set(), [])
    assert world.run("image", "inspect", AGENT).returncode == 1


def test_the_recipe_of_agents_has_a_base_for_it() -> None:
    assert AppleRuntime.recipe is not None
    recipe = Recipe.load(AppleRuntime.recipe)
    assert recipe.image == AGENT
    assert recipe.base["apple"] == recipe.base["docker"]
    assert recipe.runtimes["apple"] == {"user": "0"}
    AppleRuntime(recipe.runtimes["apple"])
