"""The order in which a dictionary of the real command comes out: any."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeVar

    T = TypeVar("T")


def shuffled(values: Iterable[T]) -> list[T]:
    """The values in any order; unlike `random` this takes no time to load."""
    return sorted(values, key=lambda _: os.urandom(8))
