"""The table `[runtimes.docker]`: everything that is wrong with it, at once."""

from __future__ import annotations

from typing import Any

import pytest

from claw_core.errors import ConfigError
from claw_runtime_docker.runtime import DockerRuntime
from claw_runtime_docker.settings import ROOTS_COMMANDS, Settings


def test_without_settings_everything_has_a_default() -> None:
    settings = Settings.parse({})
    assert settings == Settings()
    assert settings.read_only
    assert settings.capabilities == ()
    assert settings.memory == 4 << 30


def test_every_setting_can_be_set() -> None:
    table = {
        "host": "unix:///x",
        "image": "i",
        "pull": False,
        "oci_runtime": "runsc",
        "user": "7:8",
        "read_only": False,
        "capabilities": ["CAP_CHOWN", "KILL"],
        "cpus": 2,
        "memory": "1g",
        "processes": 5,
    }
    settings = Settings.parse(table)
    assert (settings.host, settings.image, settings.pull) == ("unix:///x", "i", False)
    assert (settings.oci_runtime, settings.identity) == ("runsc", "7:8")
    assert (settings.read_only, settings.capabilities) == (False, ("CHOWN", "KILL"))
    assert (settings.cpus, settings.memory, settings.processes) == (2.0, 1 << 30, 5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("host", ""),
        ("host", 1),
        ("context", None),
        ("image", "a\nb"),
        ("pull", "yes"),
        ("oci_runtime", []),
        ("user", "root"),
        ("user", 1000),
        ("user", "1:"),
        ("user", "-1"),
        ("read_only", 1),
        ("capabilities", "ALL"),
        ("capabilities", ["net"]),
        ("capabilities", [1]),
        ("cpus", 0),
        ("cpus", True),
        ("cpus", float("nan")),
        ("hosts", ["nowhere"]),
        ("memory", "much"),
        ("memory", 0),
        ("memory", True),
        ("processes", 0),
        ("processes", 1.5),
    ],
)
def test_a_wrong_value_is_named_with_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"settings of docker: {key}: expected .*, got"):
        DockerRuntime({key: value})


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        DockerRuntime({"colour": "red", "cpus": -1, "host": "unix:///x", "context": "y"})
    assert "colour: there is no such setting" in caught.value.message
    assert "cpus: expected a number" in caught.value.message
    assert "only one of them" in caught.value.message


def test_commands_of_root_are_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 0)
    assert Settings().identity == ROOTS_COMMANDS
    assert Settings(user="0").identity == "0:0"
    monkeypatch.setattr("os.getuid", lambda: 1234)
    monkeypatch.setattr("os.getgid", lambda: 5678)
    assert Settings().identity == "1234:5678"
