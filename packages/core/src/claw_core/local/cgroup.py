"""Bounds for an instance as a whole, where this process may make control groups (root).

Interfaces from Linux's `admin-guide/cgroup-v1` and `admin-guide/cgroup-v2`; on hybrid systems the
controllers are looked for one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import signal
import time
from pathlib import Path

import attrs

from claw_core.errors import RuntimeFault
from claw_core.local.listing import is_ours
from claw_core.model import Resources

TOP = Path("/sys/fs/cgroup")
PERIOD = 100_000
"""Microseconds over which a share of the processors is counted."""
OWN = 32
"""Processes that hold an instance together, supervisors of commands that run at the same time
included: they come on top of those that are asked for, which RLIMIT_NPROC bounds exactly."""


@functools.cache
def places() -> dict[str, Path]:
    """Controller -> the directory in which groups that it bounds can be made; empty where none."""
    if os.geteuid() != 0:
        return {}
    found: dict[str, Path] = {}
    unified = TOP if (TOP / "cgroup.controllers").exists() else TOP / "unified"
    for name in ("memory", "pids", "cpu"):
        if (TOP / name / "cgroup.procs").exists():
            found[name] = TOP / name
        elif name in _words(unified / "cgroup.subtree_control"):
            found[name] = unified
    return {name: path for name, path in found.items() if os.access(path, os.W_OK)}


@attrs.frozen
class Cgroup:
    """The control groups of one instance: one directory, or one for each controller."""

    name: str

    def create(self, resources: Resources, processes: int) -> None:
        """Make the groups and set their bounds.

        Raises:
            OSError: a bound cannot be set.
        """
        for path in self._directories():
            path.mkdir()
        where = places()
        if resources.memory is not None and "memory" in where:
            first = where["memory"] / self.name
            if (first / "memory.max").exists():
                _write(first / "memory.max", resources.memory)
                with contextlib.suppress(OSError):  # without swap there is nothing to bound
                    _write(first / "memory.swap.max", 0)
            else:
                _write(first / "memory.limit_in_bytes", resources.memory)
                with contextlib.suppress(OSError):  # without swap accounting there is no such file
                    _write(first / "memory.memsw.limit_in_bytes", resources.memory)
        if "pids" in where:
            _write(where["pids"] / self.name / "pids.max", processes + OWN)
        if resources.cpus is not None:
            group = where["cpu"] / self.name
            quota = max(1000, int(resources.cpus * PERIOD))
            if (group / "cpu.max").exists():
                _write(group / "cpu.max", f"{quota} {PERIOD}")
            else:
                _write(group / "cpu.cfs_period_us", PERIOD)
                _write(group / "cpu.cfs_quota_us", quota)

    def add(self, pid: int) -> None:
        """Put a process, and with it its future children, into the groups."""
        for path in self._existing():
            _write(path / "cgroup.procs", pid)

    async def remove(self, until: float) -> None:
        """End every process in the groups, and return when the groups are gone.

        Raises:
            RuntimeFault: they are still there at the monotonic time `until`.
        """
        while existing := self._existing():
            for path in existing:
                for word in _words(path / "cgroup.procs"):
                    _kill(int(word), self.name)
                try:
                    path.rmdir()
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
            if self._existing():
                if time.monotonic() > until:
                    raise RuntimeFault(f"the control group {existing[0]} cannot be removed")
                # The kernel lets go of a group a moment after its last process.
                await asyncio.sleep(0.005)

    def _directories(self) -> list[Path]:
        return sorted({path / self.name for path in places().values()})

    def _existing(self) -> list[Path]:
        return [path for path in self._directories() if path.is_dir()]


def listed(install: str) -> set[str]:
    """Names of instances of an installation that have control groups."""
    return {
        path.name
        for place in set(places().values())
        for path in place.iterdir()
        if is_ours(path.name, install) and path.is_dir()
    }


def _kill(pid: int, name: str) -> None:
    """Kill a process if it still is in the group when its pid cannot be reused any more."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if f"/{name}\n" in Path(f"/proc/{pid}/cgroup").read_text():
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return  # it has ended meanwhile
    finally:
        os.close(descriptor)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _write(path: Path, value: int | str) -> None:
    path.write_text(f"{value}\n")
