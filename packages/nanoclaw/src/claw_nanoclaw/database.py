"""What NanoClaw's database says of its groups; it is read, and never changed."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from claw_core.errors import ConfigError

V1: Final = Path("store/messages.db")
V2: Final = Path("data/v2.db")
_TIMEOUT: Final = 5.0


@attrs.frozen
class Registered:
    """A group as the database has it.

    Attributes:
        folder: the name of its folder.
        name: what people call it.
        where: the place in the database, for messages.
        is_main: whether it is the main group; NanoClaw 2 has none.
        session: id of the agent's session that it is in.
        provider: the agent that answers, where it says so.
        config: what stands under `containerConfig`.
        identity: NanoClaw 2's id of the group.
    """

    folder: str
    name: str
    where: str
    is_main: bool = False
    session: str | None = None
    provider: str | None = None
    config: Mapping[str, Any] = attrs.field(factory=dict)
    identity: str | None = None


def registered(root: Path) -> dict[str, Registered]:
    """Read the groups of an installation; none where it has no database yet.

    Raises:
        ConfigError: the database cannot be read, or is of a version that claw does not know.
    """
    for path, read in ((V2, _v2), (V1, _v1)):
        if os.path.lexists(root / path):
            with _opened(root / path) as connection:
                return {group.folder: group for group in read(connection, str(path))}
    return {}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    # The main group's agent can write below `store`: it must not make us open anything else.
    if not stat.S_ISREG(path.lstat().st_mode):
        raise _unreadable(path, "it is no regular file")
    # Nothing is written beside it: with no log of a running host it cannot change meanwhile either.
    log = Path(f"{path}-wal")
    mode = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
    uri = f"file:{urllib.parse.quote(str(path))}?{mode}"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_TIMEOUT)) as connection:
            connection.row_factory = sqlite3.Row
            yield connection
    except sqlite3.Error as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"cannot read the database {path}: {why}",
        remedy="see whether this is the directory of a NanoClaw that works",
    )


def _v1(connection: sqlite3.Connection, where: str) -> Iterator[Registered]:
    groups = _rows(connection, where, "registered_groups", {"jid", "name", "folder"})
    sessions = _rows(connection, where, "sessions", {"group_folder", "session_id"})
    known = {row["group_folder"]: row["session_id"] for row in sessions}
    for row in groups:
        folder = row["folder"]
        place = f"{where}: registered_groups.{folder}"
        yield Registered(
            folder,
            row["name"],
            place,
            # Before `is_main` there was, it was the folder's name that told.
            is_main=bool(row["is_main"]) if "is_main" in row else folder == "main",
            session=known.get(folder) or None,
            config=_object(row.get("container_config"), place),
        )


def _v2(connection: sqlite3.Connection, where: str) -> Iterator[Registered]:
    groups = _rows(connection, where, "agent_groups", {"id", "name", "folder"})
    needed = {"agent_group_id", "provider", "additional_mounts"}
    configs = _rows(connection, where, "container_configs", needed)
    known = {row["agent_group_id"]: row for row in configs}
    for row in groups:
        place = f"{where}: container_configs.{row['id']}"
        config = known.get(row["id"], {})
        mounts = _json(config.get("additional_mounts"), place)
        yield Registered(
            row["folder"],
            row["name"],
            place,
            provider=config.get("provider") or row.get("agent_provider") or None,
            config={"additionalMounts": mounts} if mounts else {},
            identity=row["id"],
        )


def _rows(
    connection: sqlite3.Connection, where: str, table: str, needed: set[str]
) -> list[dict[str, Any]]:
    """All rows of a table that has at least these columns."""
    columns = {row["name"] for row in connection.execute(f"PRAGMA table_info({table})")}
    if missing := needed - columns:
        what = f"no column {min(missing)} in the table" if columns else "no table"
        raise ConfigError(
            f"{where} is of a version of NanoClaw that claw does not know: it has {what} {table}",
            remedy="it knows NanoClaw 1.1 to 1.2 and 2.0.64; see for a newer claw-nanoclaw",
        )
    rows = connection.execute(f"SELECT * FROM {table}")  # noqa: S608 - a name of ours
    return [dict(row) for row in rows]


def _object(text: Any, place: str) -> Mapping[str, Any]:
    value = _json(text, place)
    if value is not None and not isinstance(value, dict):
        raise ConfigError(f"{place}: expected an object", remedy="register the group again")
    return value or {}


def _json(text: Any, place: str) -> Any:
    if not text:
        return None
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{place}: it is no JSON: {error}", remedy="register the group again, or correct that"
        ) from None
