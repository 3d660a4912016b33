"""The table `[runtimes.apple]`: what can be set, and what holds where nothing is."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from claw_runtime_apple.settings import Settings

PAGE = Path(__file__).parents[2] / "docs/reference/apple.md"


def test_what_holds_where_nothing_is_set() -> None:
    settings = Settings.parse({})
    assert settings.identity == f"{os.getuid()}:{os.getgid()}"
    assert settings == Settings()


def test_what_is_set_holds() -> None:
    table = {
        "command": "/opt/container",
        "image": "node:22",
        "pull": False,
        "user": "7",
        "cpus": 2,
        "memory": "3g",
    }
    settings = Settings.parse(table)
    assert (settings.identity, settings.memory) == ("7:7", 3 << 30)
    assert Settings.parse({"user": "7:8"}).identity == "7:8"
    assert Settings.parse({"memory": 1 << 30}).memory == 1 << 30


def test_every_setting_is_described() -> None:
    text = PAGE.read_text()
    for field in attrs.fields(Settings):
        assert f"| `{field.name}` |" in text
