"""What differs between the versions of the simulated `container`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulators.container.world import IMAGE, World
from simulators.container_support import error, listed, running, said


@pytest.fixture(params=["0.7.1", "0.12.3", "1.0.0", "1.2.2", "1.4.1"])
def any_version(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """A Mac with every version in turn."""
    with World(tmp_path / "mac", version=request.param) as world:
        yield world


@pytest.fixture
def old(tmp_path: Path) -> Iterator[World]:
    """A Mac with the last version before 1.0."""
    with World(tmp_path / "mac", version="0.12.3") as world:
        yield world


def test_a_version_says_what_it_is(any_version: World) -> None:
    version = any_version.mac.knob("version")
    assert said(any_version, "--version")[1].startswith(f"container CLI version {version} (build: ")
    rows = json.loads(said(any_version, "system", "version", "--format", "json")[1])
    assert [row["appName"] for row in rows] == ["container", "container-apiserver"]
    assert rows[0]["version"] == version


def test_every_version_runs_something(any_version: World) -> None:
    code, out, _ = said(any_version, "run", "--rm", "--progress", "none", IMAGE, "echo", "hello")
    assert (code, out) == (0, "hello\n")
    name = running(any_version)
    assert said(any_version, "exec", name, "echo", "hello")[1] == "hello\n"


def test_what_an_old_version_lists(old: World) -> None:
    said(old, "create", "--name", "created", IMAGE, "true")
    running(old)
    one, created = listed(old, "-a")["one"], listed(old, "-a")["created"]
    assert (one["status"], created["status"]) == ("running", "stopped")
    assert isinstance(one["startedDate"], float)
    assert one["networks"][0]["ipv4Gateway"] == "192.168.64.1"
    assert "startedDate" not in created
    assert "id" not in one
    assert "ADDR" in said(old, "ls")[1].splitlines()[0]


def test_what_an_old_version_lacks(old: World) -> None:
    assert said(old, "inspect", "no") == (0, "[]\n", "")
    assert "container-cp" in error(old, "cp", "/etc/passwd", "one:/")
    assert said(old, "create", "--shm-size", "1g", IMAGE)[0] == 64


def test_a_kill_is_waited_for_since_1_0(tmp_path: Path, old: World) -> None:
    old.configure(exit_seconds=30)
    running(old)
    said(old, "kill", "one")
    assert listed(old)["one"]["status"] == "running"
    with World(tmp_path / "new", version="1.0.0", exit_seconds=30) as new:
        running(new)
        said(new, "kill", "one")
        assert listed(new) == {}


def test_errors_of_the_oldest_tell_their_kind(tmp_path: Path) -> None:
    with World(tmp_path / "mac", version="0.7.1") as world:
        text = 'notFound: "get failed: container no not found"'
        assert error(world, "exec", "no", "true") == text
        assert said(world, "create", "--read-only", IMAGE)[0] == 64


@pytest.mark.parametrize("version", ["1.2.0", "1.2.1"])
def test_a_running_container_is_exported_since_1_2_1(tmp_path: Path, version: str) -> None:
    with World(tmp_path / "mac", version=version) as world:
        name = running(world)
        archive = tmp_path / "root.tar"
        archive.touch()
        if version == "1.2.0":
            text = error(world, "export", "-o", str(archive), name)
            assert text.startswith("file already exists")
            text = '(cause: "invalidState: "container is not stopped"")'
            assert error(world, "export", name).endswith(text)
        else:
            assert said(world, "export", "-o", str(archive), name)[0] == 0
            assert archive.stat().st_size > 1 << 20


def test_the_status_of_1_4(tmp_path: Path) -> None:
    with World(tmp_path / "mac", version="1.4.1") as world:
        up = json.loads(said(world, "system", "status", "--format", "json")[1])
        assert up["status"] == "running"
        assert up["server"]["version"] == "1.4.1"
        assert up["paths"]["installRoot"] == "/usr/local/"
        world.configure(server="unregistered")
        code, out, _ = said(world, "system", "status", "--format", "json")
        assert (code, json.loads(out)) == (1, {"status": "unregistered"})
