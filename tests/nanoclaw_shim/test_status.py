"""`claw nanoclaw status` and `shim`: what an owner is told."""

from __future__ import annotations

import asyncio
import json
import plistlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from claw_core.config.config import Config
from claw_nanoclaw.shim import executable
from claw_nanoclaw.shim.status import findings
from nanoclaw_shim import recordings
from nanoclaw_shim.world import World
from runtime_docker.engines import TestEngine

UNIT = "[Service]\nWorkingDirectory={root}\nEnvironment=HOME=/x\nEnvironment=PATH={path}\n"
TOML = """
[groups.family]
runtime = "docker"
[groups.work]
runtime = "tart"
"""


@pytest.fixture
def home(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home directory of the service's user."""
    folder = base / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def status(world: World, code: int) -> Mapping[str, Any]:
    """What it says, by subject."""
    done = world.claw(
        "nanoclaw", "status", "--dir", str(world.root), "--config", str(world.config), "--json"
    )
    assert done.returncode == code, done.stdout + done.stderr
    return {row["subject"]: row for row in json.loads(done.stdout)}


def test_routes_and_what_stands_in_their_way(engine: TestEngine, base: Path, home: Path) -> None:
    world = World.make(base, engine, "family", "work", "sly", toml=TOML)
    (world.root / "groups/sly/config.json").write_text(
        '{"containerConfig": {"runtime": "docker", "timeout": 1000}}'
    )
    (world.root / "package.json").write_text('{"name": "nanoclaw", "version": "2.0.64"}')
    rows = status(world, 1)
    assert rows["NanoClaw"]["detail"].startswith("2.0.64 in ")
    assert rows["group family"]["state"] == "ok"
    assert "docker (container), because docker is asked for" in rows["group family"]["detail"]
    assert "NanoClaw's image and runner" in rows["group family"]["detail"]
    assert rows["group work"]["state"] == "fail"
    assert "a virtual machine shares directories only" in rows["group work"]["detail"]
    note = rows["group sly: its own file"]
    assert note["state"] == "note"
    assert (
        "its agent can write groups/sly/config.json, which decides runtime, timeout"
        in (note["detail"])
    )
    assert rows["service"]["state"] == "note"
    assert "claw nanoclaw shim --dir" in rows["service"]["remedy"]


def test_an_image_that_is_missing(engine: TestEngine, base: Path, home: Path) -> None:
    world = World.make(base, engine, "family", toml="[runtimes.docker]\npull = false\n")
    (world.root / "package.json").write_text('{"name": "nanoclaw", "version": "2.1.0-x"}')
    recorded = f"nanoclaw-agent-v2-{recordings.slug(world.root)}:latest"
    engine.call("DELETE", f"/images/{recorded}")
    row = status(world, 1)["group family"]
    assert row["state"] == "fail"
    assert f"the engine has no image {recorded}" in row["detail"]


def test_the_service_finds_the_shim_or_not(base: Path, home: Path) -> None:
    world = World.make(base, None)
    units = home / ".config/systemd/user"
    agents = home / "Library/LaunchAgents"
    for folder in (units, agents):
        folder.mkdir(parents=True)
    path = f"{world.folder}:/usr/bin:/bin"
    (units / "nanoclaw.service").write_text(UNIT.format(root=world.root, path=path))
    (units / "nanoclaw-of-others.service").write_text(UNIT.format(root="/other", path="/bin"))
    plist = {"WorkingDirectory": str(world.root), "EnvironmentVariables": {"PATH": "/nowhere"}}
    (agents / "com.nanoclaw.plist").write_bytes(plistlib.dumps(plist))
    rows = status(world, 1)
    assert rows["service nanoclaw.service"]["state"] == "ok"
    assert rows["service com.nanoclaw.plist"]["detail"] == "no docker on its PATH"
    assert "service nanoclaw-of-others.service" not in rows
    (agents / "com.nanoclaw.plist").unlink()
    real = base / "real"
    real.mkdir()
    (real / "docker").write_text(
        "#!/bin/sh\necho 'nanoclaw-old-1|Exited (0)'\necho 'my-nanoclaw-db|Up'\n"
    )
    (real / "docker").chmod(0o755)
    path = f"{real}:{world.folder}"
    (units / "nanoclaw.service").write_text(UNIT.format(root=world.root, path=path))
    rows = status(World(world.root, world.config, world.folder, path=f"{real}:/usr/bin:/bin"), 1)
    assert "claw decides nothing" in rows["service nanoclaw.service"]["detail"]
    # What was started without claw is told, and its removal is left to its owner.
    old = rows["container nanoclaw-old-1"]
    assert (old["state"], old["remedy"]) == ("note", f"{real}/docker rm -f nanoclaw-old-1")
    assert "container my-nanoclaw-db" not in rows
    executable.write(base / "elsewhere", world.folder, None)
    path = f"{world.folder}:/bin"
    (units / "nanoclaw.service").write_text(UNIT.format(root=world.root, path=path))
    rows = status(world, 1)
    assert "is the shim of another installation" in rows["service nanoclaw.service"]["detail"]


def test_the_doctor_is_told_of_an_installation(
    base: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World.make(base, None)
    monkeypatch.setenv("PATH", "/nowhere")

    async def subjects(root: Path | None) -> list[str]:
        config = Config.load(path=world.config, root=root)
        return [finding.subject async for finding in findings(config)]

    assert asyncio.run(subjects(world.root)) == ["service"]
    assert asyncio.run(subjects(base)) == []
    assert asyncio.run(subjects(None)) == []


def test_a_broken_configuration_is_told(base: Path, home: Path) -> None:
    world = World.make(base, None, "family", toml="colour = 1\n")
    assert "colour" in status(world, 1)["configuration"]["detail"]


@pytest.mark.parametrize(
    ("package", "said"),
    [
        (None, "it has no package.json and no groups"),
        ('{"name": "left-pad"}', "its package.json is that of left-pad"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
    ],
)
@pytest.mark.parametrize("command", ["shim", "status"])
def test_another_directory_is_no_nanoclaw(
    base: Path, command: str, package: str | None, said: str
) -> None:
    world = World.make(base / "real", None)
    other = base / "other"
    other.mkdir()
    if package is not None:
        (other / "groups").mkdir()
        (other / "package.json").write_text(package)
    before = sorted(other.rglob("*"))
    done = world.claw("nanoclaw", command, "--dir", str(other))
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert sorted(other.rglob("*")) == before


def test_the_shim_is_written_where_it_is_asked_for(base: Path) -> None:
    world = World.make(base, None)
    done = world.claw("nanoclaw", "shim", "--dir", ".", "--bin", str(base / "bin"))
    assert done.returncode == 0, done.stderr
    assert f"put {base}/bin first on the service's PATH" in done.stdout
    assert executable.is_shim(base / "bin/docker")
    assert repr(str(world.root)) in (base / "bin/container").read_text()
