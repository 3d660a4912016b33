"""The runtimes that this project makes, whether they are installed here or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from claw_core.isolation import Isolation


@attrs.frozen
class Known:
    """A runtime of this project.

    Attributes:
        distribution: what to install for it.
        least: the weakest level that its instances may have.
        best: the strongest.
    """

    distribution: str
    least: Isolation
    best: Isolation


KNOWN: Final[Mapping[str, Known]] = {
    "apple": Known("claw-runtime-apple", Isolation.VM, Isolation.VM),
    "docker": Known("claw-runtime-docker", Isolation.CONTAINER, Isolation.KERNEL),
    "local": Known("claw-core", Isolation.GUARD, Isolation.SANDBOX),
    "tart": Known("claw-runtime-tart", Isolation.VM, Isolation.VM),
}
ALIASES: Final[Mapping[str, str]] = {"container": "apple"}


def canonical(name: str) -> str:
    """The name under which a runtime is registered, for instance `apple` for `container`."""
    return ALIASES.get(name, name)


def installation(name: str) -> str:
    """How to get a runtime that is not installed, as a sentence for an error."""
    known = KNOWN.get(canonical(name))
    return f"pip install {known.distribution}" if known else f"install what offers {name!r}"
