"""What can go wrong at the boundary of a hook, and every way in which it can."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias, get_args

Kind: TypeAlias = Literal["before", "after", "hang", "cancel", "kill", "kill-after", "lie", "late"]
"""What happens to one call of a hook.

- `before`: it fails, and nothing was done.
- `after`: it fails, and yet it was done.
- `hang`: it was done, and the answer never comes.
- `cancel`: whoever called it is cancelled while it is being done.
- `kill`: the process is killed before anything is done.
- `kill-after`: the process is killed when it has been done.
- `lie`: it says that it was done, and it was not; a listing shows what is gone.
- `late`: the process is killed at once, and it is done late: by a server within its settle time, by
  a tool at the end of its life.
"""
Boundary: TypeAlias = tuple[str, int]
"""A hook, and which of its calls in the whole world, from 1."""
Faults: TypeAlias = Mapping[Boundary, Kind]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
HONEST: Final = tuple(kind for kind in KINDS if kind != "lie")
"""Those of a hook whose word is all there is: nobody but the backend knows what still runs."""
BOUNDARIES: Final[tuple[Boundary, ...]] = (
    ("prepare", 1), ("start", 1), ("execute", 1), ("snapshot", 1),
    ("teardown", 1), ("list_instances", 1), ("teardown", 2), ("list_instances", 2),
    ("list_instances", 3),
)  # fmt: skip
"""The calls of one life, the second attempt of its teardown included."""
MOST: Final = 3
"""Faults of one schedule where every schedule is tried."""


def combinations() -> Iterator[Faults]:
    """Every way in which up to `MOST` of the boundaries have one fault each."""
    for count in range(MOST + 1):
        for boundaries in itertools.combinations(BOUNDARIES, count):
            for kinds in itertools.product(KINDS, repeat=count):
                yield dict(zip(boundaries, kinds, strict=True))


TOTAL: Final = sum(
    math.comb(len(BOUNDARIES), count) * len(KINDS) ** count for count in range(MOST + 1)
)
"""How many those are."""
