"""Durations, sizes and mounts as people write them: `1h30m`, `512mb`, `SRC:DST:rw`."""

from __future__ import annotations

import re

from claw_core.errors import ConfigError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?")
_FACTOR = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def duration(text: str) -> float:
    """Return seconds; a bare number is seconds.

    Raises:
        ConfigError: the text is not a duration, or not above zero.
    """
    value = text.strip().lower()
    seconds = 0.0
    if re.fullmatch(r"\d+(\.\d+)?", value):
        seconds = float(value)
    elif _DURATION.sub("", value) == "":
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(value))
    if not seconds or seconds == float("inf"):
        raise ConfigError(
            f"expected a duration, got {text!r}", remedy="write for instance 90s, 10m or 1h30m"
        )
    return seconds


def size(text: str) -> int:
    """Return bytes; a bare number is bytes, and units are powers of 1024.

    Raises:
        ConfigError: the text is not a size, or not above zero.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    value = int(float(match[1]) * _FACTOR[match[2]]) if match and len(match[1]) < 20 else 0
    if value <= 0:
        raise ConfigError(f"expected a size, got {text!r}", remedy="write for instance 512m or 2g")
    return value


def mount(text: str) -> tuple[str, str, bool]:
    """Return source, target, and whether it is writable, of `SRC:DST[:rw]`.

    Raises:
        ConfigError: the text is something else.
    """
    parts = text.split(":")
    mode = parts.pop() if len(parts) == 3 and parts[2] in {"ro", "rw"} else "ro"
    if len(parts) != 2 or not all(parts):
        raise ConfigError(
            f"expected SRC:DST[:rw], got {text!r}",
            remedy="name both paths; they cannot contain `:`",
        )
    return parts[0], parts[1], mode == "rw"
