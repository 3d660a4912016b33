"""Which engines work here: found out by really running each once, and remembered."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import attrs

from claw_core import durable, vfs
from claw_core.errors import ClawError
from claw_core.local import commands
from claw_core.local.launch import Launched
from claw_core.local.plan import make_setup
from claw_core.model import INSTANCE_PREFIX, IO, Spec

ENGINES = ("namespaces", "guard")
_SWITCHES = {
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
    "/proc/sys/user/max_user_namespaces": ("0", "sudo sysctl -w user.max_user_namespaces=15000"),
    "/proc/sys/kernel/unprivileged_userns_clone": (
        "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
}  # fmt: skip
"""Switches that forbid user namespaces: the forbidding value, and the line that allows them."""


@attrs.frozen
class Missing:
    """Why an engine does not work here, and what would change that."""

    reason: str
    remedy: str


async def probe(engine: str) -> Missing | None:
    """Return None where the engine works, which is remembered for this boot and version.

    A failure is not remembered: it may have been a passing one, and would weaken every later run.
    """
    key, cache = _key(), _cache()
    works = _load(cache, key)
    if engine in works:
        return None
    missing = await _try(engine)
    if missing is None:
        document = json.dumps({"key": key, "works": [*works, engine]})
        # It only saves time: where it cannot be kept, the next process tries again.
        with contextlib.suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            await asyncio.to_thread(durable.write_file, cache, document.encode())
    return missing


def forget() -> None:
    """Try again next time: an engine that was found to work has failed."""
    with contextlib.suppress(OSError):
        _cache().unlink()


async def _try(engine: str) -> Missing | None:
    name = f"{INSTANCE_PREFIX}-probe-{os.getpid()}"
    setup = make_setup(name, Spec(), engine, env={"PATH": "/usr/bin:/bin"})
    setup = setup._replace(scratch="/", workdir="/")

    async def ignore(data: bytes) -> None:
        """The probe says nothing."""

    try:
        launched = await Launched.start(setup, ())
        try:
            request: dict[str, Any] = {
                "action": "run",
                "argv": ["true"],
                "env": {},
                "workdir": None,
            }
            report = await commands.run(launched, setup, request, IO(None, ignore, ignore))
            result = commands.outcome(report, ("true",), "/")
        finally:
            await launched.end()
    except ClawError as error:
        return _explained(engine, error.message)
    if result.code:
        return _explained(engine, f"a first command ended with {result.code}")
    return None


def _explained(engine: str, reason: str) -> Missing:
    """A switch says more than the error that it leads to."""
    if engine == "guard":
        return Missing(
            reason, "use a kernel of 5.13 or later with Landlock enabled (lsm=landlock,...)"
        )
    for path, (forbids, line) in _SWITCHES.items():
        if _text(path) == forbids:
            return Missing(
                f"user namespaces are forbidden, {path} is {forbids} ({reason})",
                f"allow user namespaces: {line}",
            )
    return Missing(
        reason,
        "allow user namespaces and new mounts; inside a container they are usually forbidden, so "
        "run claw on the host, or the container with fewer restrictions",
    )


def _key() -> str:
    """Changes with everything that may change an answer."""
    parts = [vfs.boot_id(), platform.release(), str(os.geteuid()), sys.executable]
    parts += [_text(path) for path in _SWITCHES]
    parts += [_text("/proc/self/uid_map"), os.readlink("/proc/self/ns/user")]
    for file in sorted(Path(__file__).parent.glob("*.py")):
        parts.append(f"{file}:{file.stat().st_mtime_ns}")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / INSTANCE_PREFIX / f"local-probe-{os.geteuid()}.json"


def _load(path: Path, key: str) -> list[str]:
    """The engines that are known to work, if what is remembered is about just this situation."""
    try:
        value = json.loads(path.read_text())
        return [str(one) for one in value["works"]] if value["key"] == key else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
