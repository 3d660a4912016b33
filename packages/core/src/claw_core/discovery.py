"""Entry points of installed distributions, read from their metadata files.

`importlib.metadata` would do the same, for 25 ms of processor time at every `claw run`; the files
are specified (packaging.python.org, "Recording installed projects" and "Entry points"). Its values
are tuples because `claw --help` asks as well, and needs no attrs for anything else.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_METADATA = {".dist-info", ".egg-info"}
_ENTRY = re.compile(
    r"(?P<name>[^\s=\[#;][^=]*?)\s*=\s*(?P<value>[\w.]+(?:\s*:\s*[\w.]+)?)\s*(\[.*\])?"
)


class Origin(NamedTuple):
    """Where a plugin comes from."""

    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


class EntryPoint(NamedTuple):
    """One line of a group; `value` is None where the line is none that anybody could load."""

    name: str
    value: str | None
    origin: Origin


def entry_points(group: str) -> Iterator[EntryPoint]:
    """Yield the entry points of a group; nothing is imported, and no file can stop the others.

    Of a distribution that is on `sys.path` twice only the first counts, as for imports.
    """
    seen: set[str] = set()
    for folder in dict.fromkeys(sys.path):
        try:
            paths = sorted(path for path in Path(folder).iterdir() if path.suffix in _METADATA)
        except OSError:
            continue  # not a directory, or not there
        for path in paths:
            text = _read(path / "entry_points.txt")
            if f"[{group}]" not in text:
                continue
            origin = _origin(path)
            key = re.sub(r"[-_.]+", "-", origin.distribution).lower()
            if key not in seen:
                seen.add(key)
                yield from _section(text, group, origin)


def _section(text: str, group: str, origin: Origin) -> Iterator[EntryPoint]:
    current = ""
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            current = line[1:-1].strip()
        elif current == group and line and not line.startswith(("#", ";")):
            match = _ENTRY.fullmatch(line)
            if match:
                value = "".join(match["value"].split())
                yield EntryPoint(match["name"], value, origin)
            else:
                yield EntryPoint(line.partition("=")[0].strip() or line, None, origin)


def _origin(path: Path) -> Origin:
    """Name and version from the headers, else from the name of the folder."""
    headers: dict[str, str] = {}
    for line in (_read(path / "METADATA") or _read(path / "PKG-INFO")).splitlines():
        key, colon, value = line.partition(":")
        if not colon:
            break
        headers.setdefault(key.lower(), value.strip())
    name, _, version = path.name.rpartition(".")[0].partition("-")
    return Origin(headers.get("name") or name, headers.get("version") or version or "unknown")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""
