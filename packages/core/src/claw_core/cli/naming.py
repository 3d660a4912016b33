"""What somebody means who writes a name, or as much of it as is unique."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from claw_core.errors import ConfigError

if TYPE_CHECKING:
    from claw_core.entry import Entry

T = TypeVar("T")


def the_instance(wanted: str, entries: Iterable[Entry]) -> Entry:
    """The one instance that is meant, by its name or the last part of that.

    Raises:
        ConfigError: there is none, or more than one.
    """
    named = [((entry.name or entry.path.name, entry.identity), entry) for entry in entries]
    return the_one(wanted, named, "instance", "see `claw ps`")


def the_one(
    wanted: str, candidates: Sequence[tuple[Sequence[str], T]], what: str, remedy: str
) -> T:
    """The one candidate that has this name, or else one that begins so.

    Args:
        wanted: what somebody wrote.
        candidates: each with its names, the full one first.
        what: what they are.
        remedy: where one can see them.

    Raises:
        ConfigError: there is none, or more than one.
    """
    for fits in (str.__eq__, str.startswith):
        found = [
            (names[0], one)
            for names, one in candidates
            if wanted and any(fits(name, wanted) for name in names)
        ]
        if len(found) == 1:
            return found[0][1]
        if found:
            names = ", ".join(sorted(name for name, _ in found))
            raise ConfigError(f"{wanted!r} is ambiguous: {names}", remedy="write more of the name")
    raise ConfigError(f"there is no {what} {wanted!r}", remedy=remedy)
