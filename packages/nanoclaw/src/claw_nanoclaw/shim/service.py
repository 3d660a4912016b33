"""The services that start an installation, and the PATH that they have: systemd's and launchd's."""

from __future__ import annotations

import plistlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

UNITS: Final = (".config/systemd/user", "/etc/systemd/system", "Library/LaunchAgents")
"""Where NanoClaw's set-up puts them; relative ones are below the home directory."""
SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What a service has that sets none."""


@attrs.frozen
class Service:
    """One service.

    Attributes:
        file: what defines it.
        path: its PATH.
    """

    file: Path
    path: str


def found(root: Path) -> Iterator[Service]:
    """Yield the services that have the directory of an installation in their definition."""
    for folder in UNITS:
        directory = Path.home() / folder
        for file in sorted([*directory.glob("*nanoclaw*"), *directory.glob("*.claw*")]):
            try:
                text = file.read_bytes()
            except OSError:
                continue  # a directory, or not ours to read
            if str(root).encode() in text:
                yield Service(file, _launchd(text) if file.suffix == ".plist" else _systemd(text))


def _systemd(text: bytes) -> str:
    path = SYSTEM_PATH
    for line in text.decode(errors="replace").splitlines():
        key, _, value = line.strip().partition("=")
        if key == "Environment":
            for word in shlex.split(value):
                name, _, assigned = word.partition("=")
                path = assigned if name == "PATH" else path
    return path


def _launchd(text: bytes) -> str:
    try:
        value = plistlib.loads(text)
    except (plistlib.InvalidFileException, ValueError):
        return SYSTEM_PATH
    return str(value.get("EnvironmentVariables", {}).get("PATH", SYSTEM_PATH))
