"""How long a group's agent may be silent before it is ended: NanoClaw's rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from claw_core.errors import ConfigProblems

CONTAINER_TIMEOUT: Final = 1_800_000
IDLE_TIMEOUT: Final = 1_800_000
MARGIN: Final = 30_000
"""Milliseconds by which a container outlives its idle time, so that it can end by itself."""
_MOST: Final = 10**12


def limit(variables: Mapping[str, str], configured: float | None) -> float:
    """Return the seconds after which an agent that gives nothing is ended.

    Every output begins them anew. A group's own timeout is never less than the idle time and
    `MARGIN`: NanoClaw computes it so (`container-runner.ts`, 1.2.53).

    Args:
        variables: the environment and `.env`, which may have both times in milliseconds.
        configured: seconds that the group's `containerConfig.timeout` says, or None.

    Raises:
        ConfigProblems: one of the times is no number of milliseconds.
    """
    problems: list[str] = []
    container = _milliseconds(variables, "CONTAINER_TIMEOUT", CONTAINER_TIMEOUT, problems)
    idle = _milliseconds(variables, "IDLE_TIMEOUT", IDLE_TIMEOUT, problems)
    if problems:
        raise ConfigProblems.of(problems)
    own = container / 1000 if configured is None else configured
    return max(own, (idle + MARGIN) / 1000)


def _milliseconds(
    variables: Mapping[str, str], name: str, default: int, problems: list[str]
) -> int:
    text = variables.get(name)
    if not text:
        return default
    if text.isascii() and text.isdigit() and 0 < int(text[:20]) < _MOST:
        return int(text)
    problems.append(f"{name}: expected milliseconds, got {text[:40]!r}")
    return default
