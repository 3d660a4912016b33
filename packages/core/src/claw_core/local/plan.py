"""From a spec to what the launcher is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from claw_core.errors import ConfigError
from claw_core.local import scratch
from claw_core.local.setup import HOME, SANDBOX_USER, WORKSPACE, Setup
from claw_core.model import Spec

PROCESSES = 1024
"""Processes of an instance where nobody asks for another number."""
SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def becomes_another() -> bool:
    """Whether this process is root and can be another user; root of a namespace may not."""
    if os.geteuid() != 0:
        return False
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = (int(word) for word in line.split())
        if first <= SANDBOX_USER < first + count:
            return True
    return False


def prefixes() -> tuple[str, ...]:
    """Where this interpreter lives, except where that is a system directory or holds the HOME.

    Where a link leads there, both are named: virtual environments hold paths through such links.
    """
    home = Path(os.path.expanduser("~")).resolve()
    found = []
    for text in dict.fromkeys((sys.prefix, sys.base_prefix, sys.base_exec_prefix)):
        path = Path(text).resolve()
        if path == home or path in home.parents or path.parts[:2] == ("/", "usr"):
            continue
        found += [str(path), os.path.abspath(text)]
    return tuple(dict.fromkeys(found))


def make_setup(
    name: str,
    spec: Spec,
    engine: str,
    *,
    env: Mapping[str, str],
    limit_data: bool = False,
) -> Setup:
    """Say what the launcher has to make for a spec."""
    become = becomes_another()
    private = scratch.path(name) if engine == "guard" else ""
    home = private or HOME
    mounts: tuple[dict[str, Any], ...] = tuple(
        {
            "source": str(mount.source),
            "target": str(mount.source) if engine == "guard" else mount.target,
            "writable": mount.writable,
            "owner": _owner(mount.source),
        }
        for mount in spec.mounts
    )
    moved = {mount.target: str(mount.source) for mount in spec.mounts if engine == "guard"}
    directories = [one["target"] for one in mounts if os.path.isdir(one["source"])]
    default = directories[0] if directories else (private or WORKSPACE)
    path = ":".join([*(f"{prefix}/bin" for prefix in prefixes()), *SYSTEM_PATH])
    return Setup(
        name=name,
        engine=engine,
        uid=SANDBOX_USER if become else os.geteuid(),
        gid=SANDBOX_USER if become else os.getegid(),
        become=become,
        mounts=mounts,
        prefixes=prefixes(),
        share_network=spec.network == "default",
        memory=spec.resources.memory,
        limit_data=limit_data,
        processes=spec.resources.processes or PROCESSES,
        env={
            "PATH": path,
            "HOME": home,
            "USER": "agent",
            "LOGNAME": "agent",
            "LANG": "C.UTF-8",
            "TMPDIR": private or "/tmp",  # noqa: S108 - inside the sandbox
            **env,
        },
        workdir=moved_path(spec.workdir, moved) or default,
        moved=moved,
        scratch=private,
    )


def moved_path(path: str | None, moved: Mapping[str, str]) -> str | None:
    """Where a path of the instance really is, when its mounts stay at their own places."""
    for target, source in moved.items():
        if path is not None and (path == target or path.startswith(f"{target}/")):
            return source + path[len(target) :]
    return path


def _owner(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigError(
            f"cannot mount {str(path)!r}: {error.strerror}", remedy="see that it exists"
        ) from error
    return status.st_uid, status.st_gid
