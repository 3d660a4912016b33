"""The simulated `container` is as strict and as inconvenient as the real one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.support import eventually
from simulators.container.world import IMAGE, World

QUIET = ("--progress", "none")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A Mac with version 1.2.2."""
    with World(tmp_path / "mac") as world:
        yield world


def running(world: World, *options: str, name: str = "one", argv: tuple[str, ...] = ()) -> str:
    """Start a container that does nothing."""
    command = argv or ("sleep", "1000")
    done = world.run("run", "-d", *QUIET, "--name", name, *options, IMAGE, *command)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}\n".encode(), b"")
    return name


def listed(world: World, *options: str) -> dict[str, Any]:
    """What `ls` says of each container that is no stranger's."""
    done = world.run("ls", *options, "--format", "json")
    assert done.returncode == 0, done.stderr
    found = {one["configuration"]["id"]: one for one in json.loads(done.stdout)}
    return {name: one for name, one in found.items() if name in world.containers()}


def said(world: World, *argv: str, stdin: bytes | None = None) -> tuple[int, str, str]:
    """Run a command to its end."""
    done = world.run(*argv, stdin=stdin)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def error(world: World, *argv: str) -> str:
    """What a command says that fails with 1."""
    code, out, err = said(world, *argv)
    assert (code, out) == (1, ""), (code, out, err)
    assert err.startswith("Error: ")
    return err.removeprefix("Error: ").rstrip("\n")


def test_versions_and_status(world: World) -> None:
    code, out, _ = said(world, "--version")
    assert (code, out) == (0, "container CLI version 1.2.2 (build: release, commit: 3c4c59c)\n")
    code, out, _ = said(world, "system", "status", "--format", "json")
    assert code == 0
    assert json.loads(out)["status"] == "running"
    assert json.loads(out)["apiServerVersion"] == "1.2.2"
    assert "\\/" in out


def test_images_are_inspected(world: World) -> None:
    code, out, _ = said(world, "image", "inspect", IMAGE)
    assert code == 0
    assert json.loads(out)[0]["configuration"]["name"] == "docker.io/library/claw-test:1"
    assert error(world, "image", "inspect", "nothing") == "image not found: nothing"


def test_a_life_step_by_step(world: World) -> None:
    assert said(world, "create", "--name", "one", IMAGE, "sleep", "1000") == (0, "one\n", "")
    assert listed(world) == {}
    created = listed(world, "-a")["one"]
    assert created["status"] == {"networks": [], "state": "stopped"}
    assert world.processes() == {}

    assert said(world, "start", "one") == (0, "one\n", "")
    assert listed(world)["one"]["status"]["state"] == "running"
    assert sorted(world.processes().values()) == ["apiserver", "guest", "helper"]
    assert said(world, "start", "one") == (0, "one\n", "")

    assert error(world, "delete", "one") == (
        'internalError: "failed to delete container" (cause: "invalidState: "container one is '
        'running and can not be deleted"")'
    )
    assert said(world, "stop", "-s", "KILL", "one") == (0, "one\n", "")
    assert listed(world, "-a")["one"]["status"]["state"] == "stopped"
    assert said(world, "stop", "one") == (0, "one\n", "")
    assert error(world, "kill", "one").endswith(
        '(cause: "invalidState: "no runtime client exists: container is stopped"")'
    )
    assert eventually(lambda: world.processes() == {})
    assert said(world, "delete", "one") == (0, "one\n", "")
    assert world.containers() == {}


def test_run_passes_streams_and_code(world: World) -> None:
    code, out, err = said(
        world, "run", "--rm", *QUIET, IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7"
    )
    assert (code, out, err) == (7, "out\n", "err\n")
    assert eventually(lambda: world.containers() == {})


def test_exec_passes_streams_and_code(world: World) -> None:
    name = running(world)
    script = "cat; echo err >&2; exit 9"
    assert said(world, "exec", "-i", name, "sh", "-c", script, stdin=b"in\n") == (
        9,
        "in\n",
        "err\n",
    )
    assert said(world, "exec", name, "cat", stdin=b"not without -i") == (0, "", "")
    assert said(world, "exec", name, "sh", "-c", "kill -9 $$")[0] == 137


def test_the_journal_knows_every_call(world: World) -> None:
    said(world, "ls")
    with world.start("run", "--rm", *QUIET, "--name", "one", IMAGE, "sleep", "1000") as process:
        assert eventually(lambda: "one" in listed(world))
        process.kill()
    first = world.journal()[0]
    assert (first.argv, first.exit) == (("ls",), 0)
    assert first.end is not None
    assert "PATH" in first.env
    killed = next(call for call in world.journal() if call.argv[0] == "run")
    assert (killed.pid, killed.end, killed.exit) == (process.pid, None, None)


def test_guests_die_with_their_helper(world: World) -> None:
    name = running(world, argv=("sh", "-c", "setsid sleep 1000 & sleep 1000"))
    world.run("exec", "-d", name, "sleep", "1000")
    assert eventually(lambda: list(world.processes().values()).count("guest") == 3)
    os.kill(
        next(pid for pid, kind in world.processes().items() if kind == "helper"), signal.SIGKILL
    )
    assert eventually(lambda: world.processes() == {})
    assert listed(world, "-a")[name]["status"]["state"] == "stopped"


def test_the_end_of_the_world_is_the_end_of_everything(tmp_path: Path) -> None:
    with World(tmp_path / "mac") as world:
        running(world)
        world.fault("ls", "begin", "hang")
        hanging = world.start("ls")
        assert eventually(lambda: "cli" in world.processes().values())
        everything = list(world.processes())
    with hanging:
        assert hanging.wait(30) != 0
    assert len(everything) == 4
    assert not any(os.path.exists(f"/proc/{pid}/fd/0") for pid in everything)
    assert not (tmp_path / "mac").exists()


def test_strangers_are_not_to_be_touched(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="buildkit"), World(tmp_path / "mac") as world:
        assert said(world, "delete", "--force", "buildkit")[0] == 0
    with pytest.raises(AssertionError, match="stop --all"), World(tmp_path / "mac") as world:
        said(world, "stop", "--all")
