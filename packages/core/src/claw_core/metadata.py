"""What is known of a snapshot for inspection: one file for each, which no secret is in.

The file is there before the snapshot is, and then says so, without a name: whoever finds it can ask
the runtime what became of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import attrs

from claw_core import durable, vfs
from claw_core.model import Audit

VERSION: Final = 1
_SUFFIX: Final = ".json"


@attrs.frozen
class Metadata:
    """What is known of one snapshot.

    Attributes:
        instance: name of the instance that it was made of.
        label: what its maker calls it.
        runtime: name of the runtime that has it.
        settings: what that is made from; JSON, no secrets.
        group: the group that the instance ran for.
        image: what the instance started from.
        started: wall-clock time at which the instance's session began, in seconds since 1970.
        taken: the same, when the snapshot was asked for.
        name: of the snapshot; None until it is there.
        size: bytes that would be free without it, where the runtime can tell.
        exit: exit code of the last command before it; None where none ended by itself.
        signal: number of the signal that ended that, if one did.
        error: type and phase of what went wrong on claw's side until then.
        searched: names of the secrets that were looked for on its disk.
        found_in: files that hold one of them.
        unsearched: why nothing was looked for, or None.
    """

    instance: str
    label: str
    runtime: str
    settings: Mapping[str, Any]
    group: str | None
    image: str | None
    started: float
    taken: float
    name: str | None = None
    size: int | None = None
    exit: int | None = None
    signal: int | None = None
    error: str | None = None
    searched: tuple[str, ...] = ()
    found_in: tuple[str, ...] = ()
    unsearched: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is written, and shown by `claw snapshots list --json`."""
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave, ignoring keys that a later version may have added.

        Raises:
            KeyError, TypeError, ValueError: something is missing or is not what it should be.
        """
        if value["v"] != VERSION:
            raise ValueError(f"it has version {value['v']!r}, this claw reads {VERSION}")
        fields = {name: value[name] for name in _KINDS}
        for name, field in fields.items():
            if not isinstance(field, _KINDS[name]):
                raise TypeError(f"{name} has the wrong type")
        lists = {name: tuple(map(str, fields[name])) for name in ("searched", "found_in")}
        return cls(**{**fields, **lists})

    @property
    def file(self) -> str:
        """The name of its file; another snapshot of the same name replaces it."""
        return f"{self.instance}-{Audit(self.label).slug}{_SUFFIX}"


_NUMBER: Final = (int, float)
_TEXT: Final = (str, type(None))
_WHOLE: Final = (int, type(None))
_KINDS: Final[Mapping[str, Any]] = {
    "instance": str,
    "label": str,
    "runtime": str,
    "settings": dict,
    "group": _TEXT,
    "image": _TEXT,
    "started": _NUMBER,
    "taken": _NUMBER,
    "name": _TEXT,
    "size": _WHOLE,
    "exit": _WHOLE,
    "signal": _WHOLE,
    "error": _TEXT,
    "searched": (list, tuple),
    "found_in": (list, tuple),
    "unsearched": _TEXT,
}


def directory(state: Path) -> Path:
    """Where the files are."""
    return state / "snapshots"


def write(state: Path, metadata: Metadata) -> None:
    """Make it durable, as a whole.

    Raises:
        OSError: it is as it was before.
    """
    folder = directory(state)
    if not vfs.exists(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        durable.sync_directory(state)
    value = {"v": VERSION, **metadata.to_json()}
    durable.write_file(folder / metadata.file, json.dumps(value, indent=1).encode() + b"\n")


def forget(state: Path, metadata: Metadata) -> None:
    """Remove it, durably.

    Raises:
        OSError: it may still be there.
    """
    folder = directory(state)
    if folder.exists():
        durable.remove(folder / metadata.file)
        durable.sync_directory(folder)


def read(state: Path) -> tuple[list[Metadata], list[str]]:
    """Return all that is known, and of each damaged file what is wrong with it.

    Raises:
        OSError: the directory cannot be read.
    """
    found: list[Metadata] = []
    problems: list[str] = []
    folder = directory(state)
    for path in sorted(folder.glob(f"*{_SUFFIX}")) if folder.exists() else ():
        try:
            one = find(state, path.name)
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"{path} cannot be read ({type(error).__name__}: {error})")
        else:
            found += [] if one is None else [one]
    return found, problems


def find(state: Path, file: str) -> Metadata | None:
    """Return what one file says; None where there is none.

    Raises:
        OSError, KeyError, TypeError, ValueError: it cannot be read.
    """
    try:
        return Metadata.from_json(json.loads((directory(state) / file).read_bytes()))
    except FileNotFoundError:
        return None
