"""What the process table says about instances: the truth, whatever a ledger says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from claw_core.local.setup import MARKER, SANDBOX_USER
from claw_core.model import INSTANCE_PREFIX

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


def terminate(name: str) -> None:
    """Ask the first process of an instance to end everything, as it does without its owner."""
    _signal(name, signal.SIGTERM, launchers=True)


def kill(name: str) -> None:
    """Kill every process of an instance."""
    _signal(name, signal.SIGKILL, launchers=False)


def _signal(name: str, number: signal.Signals, *, launchers: bool) -> None:
    """Signal processes of an instance; each is looked at again when its pid cannot be reused."""
    for pid in _pids():
        if _instance(pid) != name or (launchers and _launched(pid) is None):
            continue
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            try:
                if _instance(pid) == name:
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)


def _pids() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def _instance(pid: int) -> str | None:
    """The instance that a process belongs to: by a launcher's arguments, or a payload's marker.

    Anybody can give a process any arguments, so it also has to be of a user whom instances run as.
    """
    name = _launched(pid) or _marked(pid)
    return name if name is not None and _user(pid) in _users() else None


def _launched(pid: int) -> str | None:
    words = _read(f"/proc/{pid}/cmdline").split(b"\0")
    if len(words) > 5 and words[3].endswith(_LAUNCHER):
        return words[4].decode(errors="replace")
    return None


def _marked(pid: int) -> str | None:
    for line in _read(f"/proc/{pid}/environ").split(b"\0"):
        name, _, value = line.partition(b"=")
        if name == MARKER.encode():
            return value.decode(errors="replace")
    return None


def _user(pid: int) -> int | None:
    """The real user; the owner of /proc/PID is root for a process that may not be looked into."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[1])
    return None


def _users() -> set[int]:
    own = os.geteuid()
    return {own, SANDBOX_USER} if own == 0 else {own}


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""  # it has ended, or belongs to someone else
