"""What the process table says about instances: the truth, whatever a ledger says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from claw_core.model import INSTANCE_PREFIX

MARKER = "CLAW_INSTANCE"
"""Variable in the environment of every payload, with the name of its instance."""

_LAUNCHER = b"launcher.py"


def is_ours(name: str, install: str) -> bool:
    """Whether a name is that of an instance of the installation."""
    return re.fullmatch(rf"{INSTANCE_PREFIX}-{re.escape(install)}-[0-9a-f]+", name) is not None


def processes(install: str) -> dict[str, list[int]]:
    """Instance -> its living processes, as far as this user can see them."""
    found: dict[str, list[int]] = {}
    for pid in _pids():
        name = _instance(pid)
        if name is not None and is_ours(name, install):
            found.setdefault(name, []).append(pid)
    return found


def kill(name: str) -> None:
    """Kill every process of an instance; each is looked at again when its pid cannot be reused."""
    for pid in _pids():
        if _instance(pid) != name:
            continue
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            try:
                if _instance(pid) == name:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)


def _pids() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def _instance(pid: int) -> str | None:
    """The instance that a process belongs to: by a launcher's arguments, or a payload's marker."""
    words = _read(f"/proc/{pid}/cmdline").split(b"\0")
    if len(words) > 5 and words[3].endswith(_LAUNCHER):
        return words[4].decode(errors="replace")
    for line in _read(f"/proc/{pid}/environ").split(b"\0"):
        name, _, value = line.partition(b"=")
        if name == MARKER.encode():
            return value.decode(errors="replace")
    return None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""  # it has ended, or belongs to someone else
