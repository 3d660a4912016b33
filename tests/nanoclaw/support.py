"""Installations of NanoClaw for tests, as its two versions make them."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agents.support import BIN, PATH
from claw_core import Config, events
from claw_nanoclaw import ContainerInput, ContainerOutput, NanoClaw

V1 = """
CREATE TABLE sessions (group_folder TEXT PRIMARY KEY, session_id TEXT NOT NULL);
CREATE TABLE registered_groups (jid TEXT PRIMARY KEY, name TEXT NOT NULL,
    folder TEXT NOT NULL UNIQUE, trigger_pattern TEXT NOT NULL, added_at TEXT NOT NULL,
    container_config TEXT, requires_trigger INTEGER DEFAULT 1, is_main INTEGER DEFAULT 0);
"""
V2 = """
CREATE TABLE agent_groups (id TEXT PRIMARY KEY, name TEXT NOT NULL, folder TEXT NOT NULL UNIQUE,
    agent_provider TEXT, created_at TEXT NOT NULL);
CREATE TABLE container_configs (agent_group_id TEXT PRIMARY KEY, provider TEXT, model TEXT,
    additional_mounts TEXT, updated_at TEXT);
"""


def database(path: Path, script: str, *statements: tuple[str, Iterable[Any]]) -> None:
    """Make a database."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
        for statement, values in statements:
            connection.execute(statement, tuple(values))
        connection.commit()


def v1(root: Path, configs: Mapping[str, Any], sessions: Mapping[str, str] = {}) -> Path:
    """Make an installation of version 1 with these groups; the one called `main` is it."""
    for folder in (*configs, "global"):
        (root / "groups" / folder).mkdir(parents=True)
        (root / "data/ipc" / folder / "input").mkdir(parents=True)
    (root / ".env").write_text("ANTHROPIC_API_KEY=canary-of-env\nTZ=Europe/Lisbon\n")
    groups = [
        (
            "INSERT INTO registered_groups VALUES (?, ?, ?, '@Andy', '2026-01-01', ?, 1, ?)",
            (f"{name}@g.us", name.title(), name, config and json.dumps(config), name == "main"),
        )
        for name, config in configs.items()
    ]
    known = [("INSERT INTO sessions VALUES (?, ?)", item) for item in sessions.items()]
    database(root / "store/messages.db", V1, *groups, *known)
    return root


def v2(root: Path, folder: str, provider: str | None, mounts: Any = None) -> Path:
    """Make an installation of version 2 with one group."""
    (root / "groups" / folder).mkdir(parents=True)
    database(
        root / "data/v2.db",
        f"PRAGMA journal_mode = WAL; {V2}",
        ("INSERT INTO agent_groups VALUES ('ag-1', 'X', ?, NULL, '2026-01-01')", (folder,)),
        (
            "INSERT INTO container_configs VALUES ('ag-1', ?, NULL, ?, '2026-01-01')",
            (provider, mounts and json.dumps(mounts)),
        ),
    )
    return root


def claw_toml(root: Path, *lines: str) -> Path:
    """Write a `claw.toml` under which the stand-in for `claude` is found."""
    said = (f'mounts = ["{BIN}:/agents"]', f'env = {{ PATH = "{PATH}" }}', *lines)
    file = root / "claw.toml"
    file.write_text("\n".join(("runtime = 'local'", *said)) + "\n")
    return file


def installation(root: Path, **environ: str) -> NanoClaw:
    """The installation, with the configuration of `claw_toml`."""
    environ = {"CLAW_CONFIG": str(root / "claw.toml"), **environ}
    return NanoClaw(root, Config.load(root=root, environ=environ))


async def outputs(
    nano: NanoClaw, folder: str, prompt: str, told: list[str] | None = None, **options: Any
) -> list[ContainerOutput]:
    """Everything that a group's agent gives for one prompt."""

    def listen(event: events.Event) -> None:
        if isinstance(event, events.Notice) and told is not None:
            told.append(event.text)

    given = options.pop("given", None) or ContainerInput(prompt=prompt)
    found = nano.run_group(folder, given, listener=listen, **options)
    return [output async for output in found]
