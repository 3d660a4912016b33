"""What a check found: a broken promise, the hook that broke it, and what was seen."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import attrs

from claw_core.errors import ClawError
from claw_core.hookspecs import Runtime

PAGE: Final = "docs/reference/hooks.md"

ENDS: Final = "every hook ends, and soon after it was cancelled"
ROOM: Final = "no hook blocks the event loop"
FAULTS: Final = "a runtime fails with a ClawError that says what to do"
STAYS: Final = "a runtime leaves the process of its host alone"
LOADS: Final = "the runtime is found by its entry point and keeps to the contract"
KIT: Final = "the kit itself does not fail"

F = TypeVar("F", bound=Callable[..., Any])


class Broken(Exception):
    """A promise was seen to be broken.

    Args:
        seen: what was seen.
        hook: the hook that broke it; None is the one that the check is about.
        promise: the promise; None is the one that the check is about.
    """

    def __init__(self, seen: str, *, hook: str | None = None, promise: str | None = None) -> None:
        super().__init__(seen)
        self.seen = seen
        self.hook = hook
        self.promise = promise

    @classmethod
    def at(cls, check: Callable[..., Any], error: ClawError) -> Broken:
        """A hook failed in a check, which may be about another one: then its own duty counts."""
        phase = error.phase
        return cls(str(error), hook=phase, promise=None if phase == hook(check) else duty(phase))

    def to_json(self) -> Mapping[str, str | None]:
        """What makes it again, short enough for one write."""
        return {"seen": self.seen[-2000:], "hook": self.hook, "promise": self.promise}


@attrs.frozen
class Verdict:
    """A broken promise; `str` of it is the message of the failing check."""

    promise: str
    hook: str
    seen: str

    @classmethod
    def of(cls, check: Callable[..., Any], error: Broken) -> Verdict:
        """What an error means in a check."""
        return cls(error.promise or promise(check), error.hook or hook(check), error.seen)

    def __str__(self) -> str:
        return (
            f"promise: {self.promise}; hook: {self.hook};"
            f" what was seen: {self.seen}; see {PAGE}#{anchor(self.hook)}"
        )


def about(name: str) -> Callable[[F], F]:
    """Say which hook a check is about. Its promise is the first line of its docstring."""

    def mark(check: F) -> F:
        check.hook = name  # type: ignore[attr-defined] # functions have attributes
        return check

    return mark


def hook(check: Callable[..., Any]) -> str:
    """The hook that a check is about."""
    return str(getattr(check, "hook", "runtime"))


def promise(check: Callable[..., Any]) -> str:
    """The promise that a check is about."""
    first = (check.__doc__ or "").partition("\n\n")[0]
    text = " ".join(first.split()).rstrip(".")
    return text[:1].lower() + text[1:]


def duty(name: str | None) -> str | None:
    """What a hook is there for, in the words of the contract; None where there is no such hook."""
    specification = getattr(Runtime, name or "", None)
    return specification and promise(specification)


def anchor(name: str) -> str:
    """Where the reference describes a hook."""
    specification = getattr(Runtime, name, None)
    if specification is None:
        return "the-contract-of-a-runtime"
    arguments = list(inspect.signature(specification).parameters)[1:]
    return re.sub(r"[^\w -]", "", f"{name}({', '.join(arguments)})").replace(" ", "-")
