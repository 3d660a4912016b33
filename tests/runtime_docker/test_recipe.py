"""An image is made whole or not at all, and holds nothing but what its recipe says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import attrs
import pytest

import claw_core
from claw_core.config.recipe import Recipe
from claw_core.config.settings import Script
from claw_core.errors import ConfigError, RuntimeFault, Unsupported
from claw_core.recipe import Prepared, prepare_image
from claw_core.session import Session
from claw_runtime_docker import images
from claw_runtime_docker.runtime import DockerRuntime
from cli.support import claw, entries, eventually, start
from runtime_docker import closure, engines
from runtime_docker.engines import IMAGE, TestEngine
from runtime_docker.support import configured, output, run, session, shell

RECIPE = """
image = "claw-test-made"
network = "none"

[base]
docker = "claw-test:1"

[variables]
GREETING = "hello"
MIRROR = "far"

[runtimes.docker]
user = "0"
read_only = false

[[files]]
source = "etc/tool.conf"
target = "/etc/tool.conf"

[[steps]]
name = "a tool"
run = '''
printf '#!/bin/sh\\necho %s from %s\\n' "$GREETING" "$MIRROR" > /bin/tool
chmod 4755 /bin/tool
[ -z "$FILES" ] || cp "$FILES/package" /bin/package
echo said by the step
'''

[[verify]]
name = "the tool"
run = "tool | grep $GREETING; cat /etc/tool.conf"
"""


@pytest.fixture
def engine() -> Iterator[TestEngine]:
    """One of its own: these tests look at all of its images."""
    with engines.private() as private:
        yield private


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/tool.conf").write_text("configured\n")
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


@contextlib.asynccontextmanager
async def default_session(engine: TestEngine) -> AsyncIterator[Session]:
    """A session for which no image is named anywhere."""
    async with (
        claw_core.Router.open(config=configured({"host": engine.host})) as router,
        router.session(runtime="docker") as opened,
    ):
        yield opened


def prepare(engine: TestEngine, recipe: Recipe, **options: object) -> Prepared:
    config = configured({"host": engine.host})
    return run(prepare_image("docker", recipe, config=config, **options))  # type: ignore[arg-type]  # by name


def changed(recipe: Path, old: str, new: str) -> Recipe:
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new))
    return Recipe.load(recipe)


def test_from_the_command_line(
    engine: TestEngine, recipe: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    monkeypatch.setenv("CANARY", "canary-value")
    toml = tmp_path / "claw.toml"
    toml.write_text('secrets = ["CANARY"]\nenv = { OTHER = "canary-value" }\nfallback = ["local"]')
    options = ("--config", toml, "--set", "MIRROR=near", "--files", tmp_path)
    (tmp_path / "package").write_text("offline")
    done = claw("image", "prepare", "docker", recipe, *options, "--json")
    assert done.returncode == 0, done.stderr
    assert b"step 1 of 1: a tool" in done.stderr
    made = json.loads(done.stdout)
    assert made["image"] == "claw-test-made:latest"
    assert "said by the step" in Path(made["log"]).read_text()
    assert "canary" not in str(engine.call("GET", "/images/claw-test-made/json"))
    assert sorted(engine.images()) == ["claw-test-made:latest", IMAGE]
    assert engine.names() == set()
    assert entries(state) == []

    script = "tool; cat /etc/tool.conf /bin/package; ls -a /files"
    ran = claw("run", "-q", "-r", "docker", "--image", made["image"], "--", "sh", "-c", script)
    assert ran.stdout == b"hello from near\nconfigured\noffline.\n..\n", ran


def test_again_replaces_the_image_and_leaves_none_behind(engine: TestEngine, recipe: Path) -> None:
    first = prepare(engine, Recipe.load(recipe))
    again = prepare(engine, Recipe.load(recipe), variables={"GREETING": "bye"})
    assert again.image == first.image
    assert sorted(engine.images()) == ["claw-test-made:latest", IMAGE]

    async def work() -> str:
        async with session(engine, image=again.image) as s:
            return await shell(s, "tool")

    assert run(work()) == "bye from far\n"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("echo said by the step", "echo last; exit 3", "step 1 of 1: a tool failed with code 3"),
        ("echo said by the step", "nope\necho never", "nope: not found"),
        ("tool | grep $GREETING", "tool | grep other", "verification 1 of 1: the tool failed"),
        ('name = "a tool"', 'name = "a tool"\ntimeout = "1s"\n#', "a tool"),
    ],
)  # fmt: skip
def test_a_step_that_fails_leaves_nothing_but_a_log(
    engine: TestEngine, recipe: Path, state: Path, old: str, new: str, says: str
) -> None:
    if "timeout" in new:
        changed(recipe, "echo said by the step", "sleep 600")
    with pytest.raises(RuntimeFault, match="failed with") as error:
        prepare(engine, changed(recipe, old, new))
    assert says in str(error.value)
    assert str(state / "images") in str(error.value.remedy)
    assert engine.images() == [IMAGE]
    assert engine.names() == set()


def test_what_holds_only_while_it_is_made_is_seen_when_it_is_looked_at(
    engine: TestEngine, recipe: Path
) -> None:
    made = changed(recipe, "cat /etc/tool.conf", "touch /bin/more")
    with pytest.raises(RuntimeFault, match="verification of the image 1 of 1") as error:
        prepare(engine, made)
    assert "Read-only file system" in str(error.value)
    assert "claw-test-made:latest is there" in str(error.value.cleaned)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_half_an_image_is_never_there(
    engine: TestEngine, recipe: Path, state: Path, number: int
) -> None:
    changed(recipe, "echo said by the step", "echo half; sleep 600")
    env = {**os.environ, "DOCKER_HOST": engine.host}
    with start("image", "prepare", "docker", str(recipe), env=env) as process:
        log = state / "images/claw-test-made.log"
        assert eventually(lambda: log.exists() and "half" in log.read_text(), 30)
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == (-9 if number == signal.SIGKILL else 143)
    assert eventually(lambda: claw("reap").returncode == 0 and entries(state) == [], 60)
    assert engine.names() == set()
    assert engine.images() == [IMAGE]


def test_what_cannot_be_made_is_told(engine: TestEngine, recipe: Path) -> None:
    loaded = Recipe.load(recipe)
    with pytest.raises(ConfigError, match="no variable GRETING"):
        prepare(engine, loaded, variables={"GRETING": "x"})
    config = claw_core.Config()
    with pytest.raises(ConfigError, match="no base for local, only for docker"):
        run(prepare_image("local", loaded, config=config))
    with pytest.raises(Unsupported, match="local keeps no snapshots"):
        run(prepare_image("local", loaded, base="any"))
    missing = attrs.evolve(loaded, base={"docker": "claw-test-absent:1"})
    with pytest.raises(claw_core.ClawError, match="no image claw-test-absent:1"):
        prepare(engine, missing)
    assert claw("image", "prepare", "local").returncode == 2
    assert b"local ships no recipe" in claw("image", "prepare", "local").stderr


def test_the_prepared_image_is_the_default(engine: TestEngine, recipe: Path) -> None:
    assert Recipe.load(DockerRuntime.recipe).image == images.AGENT

    async def work() -> str:
        async with default_session(engine) as s:
            return await shell(s, "tool")

    with pytest.raises(claw_core.ClawError, match="claw image prepare docker"):
        run(work())
    prepare(engine, Recipe.load(recipe), image=images.AGENT)
    assert run(work()) == "hello from far\n"


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_shipped_recipe_makes_an_image_of_an_agent_without_a_network(
    engine: TestEngine, tmp_path: Path
) -> None:
    """Node, npm, git and Python come from this machine, in place of Debian's packages."""
    shipped = Recipe.load(DockerRuntime.recipe)
    npm = Path("/usr/bin/npm").resolve().parents[1]
    python = Path("/usr/bin/python3").resolve()
    tools = [Path("/usr/bin/node"), Path("/usr/bin/git"), Path("/usr/bin/python3"), python]
    package = f"@anthropic-ai/claude-code@{shipped.variables['CLAUDE_CODE']}"
    files = tmp_path / "files"
    fetched = tmp_path / "fetched"
    fetch = ("npm", "install", "--global", "--prefix", fetched, "--cache", files / "npm", package)
    subprocess.run(fetch, check=True, timeout=300)
    tools += [Path(one) for native in fetched.rglob("claude") for one in closure.libraries(native)]
    tree = closure.image({str(one): one for one in tools}, [Path(f"/usr/lib/{python.name}"), npm])
    engine.import_image(tree, "claw-test-node:1", "ENV PATH=/usr/local/bin:/usr/bin:/bin")
    tools_step = f"ln -s {npm}/bin/npm-cli.js /usr/bin/npm; ln -s /bin/env /usr/bin/env"
    steps = (attrs.evolve(shipped.steps[0], run=Script(tools_step)), *shipped.steps[1:])
    only = {"CODEX": "", "GEMINI_CLI": "", "OPENCODE": ""}
    made = prepare(
        engine, attrs.evolve(shipped, steps=steps), base="claw-test-node:1", files=files,
        variables=only, network="none",
    )  # fmt: skip
    assert made.image == "claw-agent:latest"

    async def work() -> str:
        async with default_session(engine) as s:
            return (await output(s, "claude", "--version"))[1]

    assert shipped.variables["CLAUDE_CODE"] in run(work())
