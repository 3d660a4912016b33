"""Commands that other distributions add to `claw`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from cli.support import claw, install

GREET = """
import click

@click.command("greet")
@click.argument("name")
def command(name):
    "Say hello."
    click.echo(f"hello {name}")
"""


@pytest.fixture
def env(tmp_path: Path) -> Mapping[str, str]:
    """The environment of processes that see what is installed there."""
    path = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{tmp_path}{os.pathsep}{path}" if path else str(tmp_path)}


def test_a_command_of_a_plugin_is_listed_and_runs(tmp_path: Path, env: Mapping[str, str]) -> None:
    install(tmp_path, "claw-greet", "greet = claw_greet:command", GREET, "claw.commands")
    listed = claw("--help", env=env).stdout.decode()
    assert re.search(r"^  greet +\(of claw-greet\)$", listed, re.MULTILINE)
    assert listed.index("run ") < listed.index("greet ")
    done = claw("greet", "you", env=env)
    assert (done.returncode, done.stdout) == (0, b"hello you\n")
    assert b"Say hello." in claw("greet", "--help", env=env).stdout


def test_it_is_imported_only_when_it_is_used(tmp_path: Path, env: Mapping[str, str]) -> None:
    install(tmp_path, "claw-greet", "greet = claw_greet:command", "1 / 0", "claw.commands")
    assert claw("--help", env=env).returncode == 0
    assert claw("ps", env=env).returncode == 0
    broken = claw("greet", env=env)
    assert broken.returncode == 125
    assert b"the plugin greet of claw-greet 1.2 cannot be imported: ZeroDivisionError" in (
        broken.stderr
    )


def test_it_never_takes_the_place_of_another(tmp_path: Path, env: Mapping[str, str]) -> None:
    install(tmp_path, "claw-ps", "ps = claw_ps:command", "1 / 0", "claw.commands")
    assert claw("ps", env=env).returncode == 0
    for name in ("claw-one", "claw-two"):
        module = name.replace("-", "_")
        install(tmp_path, name, f"greet = {module}:command", GREET, "claw.commands")
    twice = claw("greet", "you", env=env)
    assert twice.returncode == 125
    assert b"more than one distribution offers this plugin" in twice.stderr


def test_what_is_no_command_is_said_so(tmp_path: Path, env: Mapping[str, str]) -> None:
    install(tmp_path, "claw-greet", "greet = claw_greet:GREET", "GREET = 3", "claw.commands")
    done = claw("greet", env=env)
    assert (done.returncode, b"the plugin greet is no command" in done.stderr) == (125, True)
    assert claw("nothing", env=env).returncode == 2


FINDS = """
from claw_core.doctor import Finding

async def finds(config):
    yield Finding("weather", "note", f"rain over {config.root}", "an umbrella")
    1 / 0
"""


def test_a_plugin_adds_findings_to_the_doctor(tmp_path: Path, env: Mapping[str, str]) -> None:
    install(tmp_path, "claw-weather", "weather = claw_weather:finds", FINDS, "claw.doctor")
    install(tmp_path, "claw-broken", "broken = claw_broken:finds", "1 / 0", "claw.doctor")
    done = claw("doctor", "--json", "--root", str(tmp_path), env=env)
    rows = [row for row in json.loads(done.stdout) if row["subject"] in _SUBJECTS]
    assert [(row["subject"], row["state"]) for row in rows] == [
        ("plugin broken", "fail"),
        ("weather", "note"),
        ("plugin weather", "note"),
    ]
    assert "cannot be imported" in rows[0]["detail"]
    assert rows[1]["detail"] == f"rain over {tmp_path}"
    assert "ZeroDivisionError" in rows[2]["detail"]


_SUBJECTS = {"plugin broken", "weather", "plugin weather"}
