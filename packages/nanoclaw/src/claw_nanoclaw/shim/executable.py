"""The executables for the PATH of a NanoClaw service: `docker` and `container`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from claw_core import durable
from claw_core.errors import ClawError, ConfigError
from claw_nanoclaw.shim import front

TOOLS: Final = ("docker", "container")
"""The commands that NanoClaw starts: of Docker, and of Apple where its skill for that is merged."""
MARK: Final = "# Written by `claw nanoclaw shim`; not to be edited."
FOLDER: Final = ".claw/bin"
"""Where they are, below the directory of the installation, unless somebody says otherwise."""
_LONGEST: Final = 127
"""Characters of the first line that every kernel reads."""


def write(root: Path, folder: Path, config: Path | None, python: str = sys.executable) -> None:
    """Write the executables; each is replaced as a whole, so that a service may be running.

    Args:
        root: the directory of the NanoClaw installation.
        folder: where to write them.
        config: the `claw.toml` that decides about its groups; None is the user's own.
        python: the interpreter that has claw.

    Raises:
        ConfigError: something else is there under one of the names.
        ClawError: they cannot be written.
    """
    for tool in TOOLS:
        path = folder / tool
        if os.path.lexists(path) and not is_shim(path):
            raise ConfigError(
                f"{path} was not written by claw, and is left alone",
                remedy="give another directory with --bin",
            )
    text = program(root, config, python)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for tool in TOOLS:
            temporary = folder / f".{tool}-{os.getpid()}"
            durable.write_file(temporary, text.encode())
            temporary.chmod(0o755)
            temporary.replace(folder / tool)
    except OSError as error:
        raise ClawError(
            f"cannot write {folder}: {error.strerror}", remedy="give another directory with --bin"
        ) from error


def program(root: Path, config: Path | None, python: str) -> str:
    """The text of an executable: its first lines, `front.py`, and the call."""
    first = f"#!{python} -IS\n"
    if " " in python or len(first) > _LONGEST:
        # A line that no kernel reads: a shell starts the interpreter, which skips that as a text.
        quoted = python.replace("'", "'\"'\"'")
        first = f"#!/bin/sh\n'''exec' '{quoted}' -IS \"$0\" \"$@\"\n' '''\n"
    source = Path(front.__file__).read_text()
    call = f"main({python!r}, {str(root)!r}, {str(config or '')!r})\n"
    return f"{first}{MARK}\n{source}\n\n{call}"


def is_shim(path: Path) -> bool:
    """Whether a file is an executable of claw's."""
    try:
        with path.open("rb") as file:
            return MARK.encode() in file.read(4096)
    except OSError:
        return False


def found_by(path: str, tool: str) -> Path | None:
    """The command that a service with this PATH would start."""
    for folder in path.split(os.pathsep):
        candidate = Path(folder) / tool
        if folder and os.access(candidate, os.X_OK) and candidate.is_file():
            return candidate
    return None


def real(path: str, tool: str) -> Path | None:
    """The first command on a path that is no shim."""
    for folder in path.split(os.pathsep):
        found = found_by(folder, tool)
        if found is not None and not is_shim(found):
            return found
    return None
