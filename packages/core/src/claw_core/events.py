"""What happens during a run, as values that a progress line, a log or a test can watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs


@attrs.frozen
class PhaseStarted:
    """A phase of an instance has begun."""

    runtime: str
    instance: str
    phase: str


@attrs.frozen
class PhaseEnded:
    """A phase of an instance has ended after `seconds`; `error` is None where it went well."""

    runtime: str
    instance: str
    phase: str
    seconds: float
    error: str | None = None


@attrs.frozen
class Progress:
    """A backend says what it is doing inside a phase."""

    runtime: str
    instance: str
    text: str


@attrs.frozen
class Notice:
    """Something that the user should know and that does not end the run.

    An `urgent` one is also for who wants to hear of nothing but errors.
    """

    text: str
    urgent: bool = False


Event: TypeAlias = PhaseStarted | PhaseEnded | Progress | Notice
Listener: TypeAlias = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A listener that does nothing."""
