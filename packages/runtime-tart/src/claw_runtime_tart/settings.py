"""The table `[runtimes.tart]` of the configuration, checked as a whole."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

import attrs

from claw_core import units
from claw_core.errors import ClawError, ConfigError

Transport: TypeAlias = Literal["ssh", "proxy", "agent"]
Share: TypeAlias = Literal["auto", "mount", "copy"]

IMAGE: Final = "tart_nanoclaw_base"
"""The image that `claw image prepare tart` makes, and of instances for which none is named."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@attrs.frozen
class Settings:
    """What can be set, and what holds where nothing is set.

    Attributes:
        image: local virtual machine, or image that Tart has pulled, of runs that name none.
        pull: whether an image of a registry is pulled that Tart does not have: many gigabytes.
        username: who commands are run as, in the guest.
        ssh_timeout: seconds from the start of the machine until it must take commands.
        ssh_port: on which the guest's SSH server listens.
        transport: how commands reach the guest: `ssh` over its network; `proxy`, which is SSH over
            Tart's guest agent and needs no network; `agent`, without SSH. Where a network path
            is forbidden, `ssh` becomes `proxy` by itself.
        share: how mounts reach the guest: `mount` shares them, `copy` copies them in, and what is
            writable back after every command; `auto` copies writable git working trees, which
            Apple's sharing damages (https://github.com/openai/tart/issues/1271).
        allow: networks that the guest may reach; with one, it may reach nothing else. Takes
            softnet.
        tart: the command; None: `tart` on PATH, or where Homebrew puts it.
        home: Tart's directory; None: `TART_HOME`, or `~/.tart`.
        leases: the DHCP server's leases.
        memory_budget: bytes that all machines of this user may have together; None: the host's.
    """

    image: str = IMAGE
    pull: bool = False
    username: str = "admin"
    ssh_timeout: float = 180.0
    ssh_port: int = 22
    transport: Transport = "ssh"
    share: Share = "auto"
    allow: tuple[str, ...] = ()
    tart: str | None = None
    home: Path | None = None
    leases: Path = Path("/var/db/dhcpd_leases")
    memory_budget: int | None = None

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
        if problems:
            raise ConfigError(
                "settings of tart: " + "; ".join(problems),
                remedy="correct the table [runtimes.tart]",
            )
        return cls(**values)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable() or value[0] == "-":
        raise TypeError("expected a text that does not begin with -")
    return value


def _user(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("expected the name of a user")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("expected true or false")
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 86_400:
        raise ValueError("expected seconds, up to a day")
    return float(value)


def _port(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65_536:
        raise ValueError("expected the number of a port")
    return value


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"expected one of {', '.join(words)}")
        return str(value)

    return read


def _networks(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise TypeError('expected a list of networks such as "192.0.2.0/24"')
    return tuple(str(ipaddress.IPv4Network(one)) for one in value)


def _path(value: Any) -> Path:
    if not isinstance(value, str) or not os.path.isabs(value):  # noqa: PTH117 - it is a text here
        raise ValueError("expected an absolute path")
    return Path(value)


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError('expected a size such as "16g"')
    return value if isinstance(value, int) else units.size(value)


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "image": _text,
    "pull": _truth,
    "username": _user,
    "ssh_timeout": _seconds,
    "ssh_port": _port,
    "transport": _one_of("ssh", "proxy", "agent"),
    "share": _one_of("auto", "mount", "copy"),
    "allow": _networks,
    "tart": _text,
    "home": _path,
    "leases": _path,
    "memory_budget": _size,
}
