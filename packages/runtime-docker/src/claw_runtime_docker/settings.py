"""The table `[runtimes.docker]` of the configuration, checked as a whole."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

import attrs

from claw_core import units
from claw_core.errors import ClawError, ConfigError

ROOTS_COMMANDS: Final = "65533:65533"
"""Who root's commands are by default: numbers that neither Debian nor systemd gives to anybody."""

_USER: Final = re.compile(r"\d{1,10}(:\d{1,10})?")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+:(host-gateway|[0-9A-Fa-f.:]+)")
_CAPABILITY: Final = re.compile(r"(CAP_)?[A-Z][A-Z_]+")


@attrs.frozen
class Settings:
    """What can be set, and what holds where nothing is set.

    Attributes:
        host: address of the engine; None: as the `docker` command finds it.
        context: Docker context; None: as the `docker` command finds it.
        image: image of runs that name none.
        pull: whether an image that is missing is pulled.
        oci_runtime: what starts containers, for instance `runsc`; None: the engine's default.
        seccomp: what filters system calls where a mount is writable: `claw`, so that nothing can
            set a set-user-id bit, or the `engine`; where none is, the engine does.
        user: `uid` or `uid:gid` of every process; None: the caller's, and another for root.
        read_only: whether the image's files cannot be changed.
        capabilities: of the kernel's, those that a container keeps.
        hosts: `name:address` of hosts that a container knows by name; `host-gateway` as an address
            is this machine.
        cpus: processors of an instance for which no number is asked for; None: all.
        memory: bytes of an instance for which no number is asked for.
        processes: of an instance for which no number is asked for.
    """

    host: str | None = None
    context: str | None = None
    image: str | None = None
    pull: bool = True
    oci_runtime: str | None = None
    seccomp: str = "claw"
    user: str | None = None
    read_only: bool = True
    capabilities: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    cpus: float | None = None
    memory: int = 4 << 30
    processes: int = 1024

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> Self:
        """Check a table, and return what it says.

        Raises:
            ConfigError: everything that is wrong with it, at once.
        """
        values: dict[str, Any] = {}
        problems = [
            f"{key}: there is no such setting; there are {', '.join(_READERS)}"
            for key in table
            if key not in _READERS
        ]
        for key, read in _READERS.items():
            try:
                if key in table:
                    values[key] = read(table[key])
            except (TypeError, ValueError, ClawError) as error:
                problems.append(f"{key}: {error}, got {table[key]!r}")
        if "host" in table and "context" in table:
            problems.append("host and context: only one of them can name the engine")
        if problems:
            raise ConfigError(
                "settings of docker: " + "; ".join(problems),
                remedy="correct the table [runtimes.docker]",
            )
        return cls(**values)

    @property
    def identity(self) -> str:
        """`uid:gid` of every process in the instance."""
        if self.user is not None:
            return self.user if ":" in self.user else f"{self.user}:{self.user}"
        if os.getuid() == 0:
            return ROOTS_COMMANDS
        return f"{os.getuid()}:{os.getgid()}"


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise TypeError("expected a text")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("expected true or false")
    return value


def _seccomp(value: Any) -> str:
    if value not in ("claw", "engine"):
        raise ValueError('expected "claw" or "engine"')
    return str(value)


def _user(value: Any) -> str:
    if not isinstance(value, str) or not _USER.fullmatch(value):
        raise ValueError('expected numbers, "UID" or "UID:GID"')
    return value


def _capabilities(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(one, str) and _CAPABILITY.fullmatch(one) for one in value
    ):
        raise ValueError('expected a list of names such as "NET_BIND_SERVICE"')
    return tuple(one.removeprefix("CAP_") for one in value)


def _hosts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(one, str) and _HOST.fullmatch(one) for one in value
    ):
        raise ValueError('expected a list of hosts such as "host.docker.internal:host-gateway"')
    return tuple(value)


def _cpus(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 10_000:
        raise ValueError("expected a number of processors above 0")
    return float(value)


def _memory(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError("expected a size such as 2g")
    try:
        return units.size(str(value))
    except ConfigError:
        raise ValueError("expected a size such as 2g") from None


def _processes(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("expected a number of processes above 0")
    return value


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "host": _text,
    "context": _text,
    "image": _text,
    "pull": _truth,
    "oci_runtime": _text,
    "seccomp": _seccomp,
    "user": _user,
    "read_only": _truth,
    "capabilities": _capabilities,
    "hosts": _hosts,
    "cpus": _cpus,
    "memory": _memory,
    "processes": _processes,
}
