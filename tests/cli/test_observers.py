"""Observers that are installed: every run has them, and none of them prevents a teardown."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cli.support import claw, install

WATCH = """
import contextlib, os, pathlib

class Watch:
    def __init__(self):
        self.log = pathlib.Path(os.environ["WATCH_LOG"])

    @contextlib.asynccontextmanager
    async def around(self, phase):
        with self.log.open("a") as log:
            print("enter", phase.name, file=log)
        if phase.name == os.environ.get("WATCH_DENIES"):
            raise PermissionError("not today")
        yield
        with self.log.open("a") as log:
            print("leave", phase.name, file=log)
"""


class Machine:
    """A place with plugins, and a configuration."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site = tmp_path / "site"
        self.site.mkdir()
        self.log = tmp_path / "log"
        self.config = tmp_path / "claw.toml"
        self.config.touch()
        path = os.pathsep.join(filter(None, (str(self.site), os.environ.get("PYTHONPATH"))))
        monkeypatch.setenv("PYTHONPATH", path)
        monkeypatch.setenv("WATCH_LOG", str(self.log))

    def plugin(self, name: str, source: str, entry: str = "Watch") -> None:
        module = name.replace("-", "_")
        install(self.site, name, f"{name} = {module}:{entry}", source, "claw.plugins")

    def run(self, *command: str, **env: str) -> tuple[int, str]:
        done = claw("run", "--config", self.config, "-r", "local", "--", *command, env=env)
        return done.returncode, done.stderr.decode()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_an_installed_observer_is_around_every_phase(machine: Machine) -> None:
    machine.plugin("watch", WATCH)
    assert machine.run("true") == (0, "")
    phases = ["prepare", "start", "execute", "teardown"]
    expected = [f"{step} {phase}" for phase in phases for step in ("enter", "leave")]
    assert machine.log.read_text().splitlines() == expected


@pytest.mark.parametrize("phase", ["prepare", "start", "execute"])
def test_it_can_deny_and_the_instance_is_gone(machine: Machine, phase: str, state: Path) -> None:
    machine.plugin("watch", WATCH)
    code, said = machine.run("true", WATCH_DENIES=phase)
    assert code == 125
    assert "the observer Watch denied it: PermissionError: not today" in said
    assert list((state / "instances").iterdir()) == []


def test_it_cannot_prevent_a_teardown(machine: Machine, state: Path) -> None:
    machine.plugin("watch", WATCH)
    code, _ = machine.run("true", WATCH_DENIES="teardown")
    assert code == 0
    assert list((state / "instances").iterdir()) == []


def test_a_broken_one_is_said_and_prevents_nothing(machine: Machine) -> None:
    machine.plugin("broken", "raise SystemExit(3)")
    code, said = machine.run("true")
    assert code == 0
    assert "the plugin broken of broken 1.2 cannot be imported" in said


@pytest.mark.parametrize("source", ["raise SystemExit(3)", "x = 1"])
def test_a_required_one_that_is_broken_prevents_everything(machine: Machine, source: str) -> None:
    machine.plugin("policy", source)
    machine.config.write_text('required_observers = ["policy"]\n')
    code, said = machine.run("true")
    assert code == 125
    assert "policy" in said
    done = claw("doctor", "--json", "--config", machine.config)
    assert done.returncode == 1
    (found,) = (one for one in json.loads(done.stdout) if one["subject"].endswith(" policy"))
    assert found["state"] == "fail"


def test_a_required_one_that_works_is_held(machine: Machine) -> None:
    machine.plugin("watch", WATCH)
    machine.config.write_text('required_observers = ["watch"]\n')
    assert machine.run("true")[0] == 0
    assert machine.log.exists()
