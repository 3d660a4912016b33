"""The table `[runtimes.apple]` of the configuration, checked as a whole."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

import attrs

from claw_core import units
from claw_core.errors import ClawError, ConfigError

LEAST_MEMORY: Final = 200 << 20
"""Bytes below which `container` makes no virtual machine."""

_USER: Final = re.compile(r"\d{1,10}(:\d{1,10})?")


@attrs.frozen
class Settings:
    """What can be set, and what holds where nothing is set.

    Attributes:
        command: path of the `container` command; None: the first one on `PATH`.
        image: image of runs that name none.
        pull: whether an image that is missing is pulled.
        user: `uid` or `uid:gid` of every command; None: the caller's.
        cpus: processors of an instance for which no number is asked for.
        memory: bytes of an instance for which no number is asked for.
    """

    command: str | None = None
    image: str | None = None
    pull: bool = True
    user: str | None = None
    cpus: int = 4
    memory: int = 4 << 30

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
                "settings of apple: " + "; ".join(problems),
                remedy="correct the table [runtimes.apple]",
            )
        return cls(**values)

    @property
    def identity(self) -> str:
        """`uid:gid` of every command; what is mounted is the caller's."""
        if self.user is not None:
            return self.user if ":" in self.user else f"{self.user}:{self.user}"
        return f"{os.getuid()}:{os.getgid()}"


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise TypeError("expected a text")
    return value


def _path(value: Any) -> str:
    if not os.path.isabs(_text(value)):  # noqa: PTH117 - a text, not a file of ours
        raise ValueError("expected an absolute path")
    return str(value)


def _image(value: Any) -> str:
    if _text(value).startswith("-"):
        raise ValueError("expected the name of an image")
    return str(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("expected true or false")
    return value


def _user(value: Any) -> str:
    if not isinstance(value, str) or not _USER.fullmatch(value):
        raise ValueError('expected numbers, "UID" or "UID:GID"')
    return value


def _cpus(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 10_000:
        raise ValueError("expected a whole number of processors above 0")
    return value


def _memory(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError("expected a size such as 2g")
    try:
        size = units.size(str(value))
    except ConfigError:
        raise ValueError("expected a size such as 2g") from None
    if size < LEAST_MEMORY:
        raise ValueError("expected 200m or more")
    return size


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "command": _path,
    "image": _image,
    "pull": _truth,
    "user": _user,
    "cpus": _cpus,
    "memory": _memory,
}
