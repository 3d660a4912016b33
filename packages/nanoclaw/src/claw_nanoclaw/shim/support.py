"""Which kind of group works on which runtime, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import attrs

from claw_core.errors import Refused
from claw_nanoclaw.shim.layout import LAYOUTS, Layout

Way: TypeAlias = Literal["image", "agent", "no"]
"""NanoClaw's own image and runner; the group's agent alone, run by claw; not at all."""


@attrs.frozen
class Support:
    """What becomes of one layout on one runtime.

    Attributes:
        way: how it runs.
        why: what that means, or why it cannot be.
    """

    way: Way
    why: str


_OWN: Final = Support("image", "NanoClaw's image and runner, as they are")
_APPLES: Final = Support(
    "image",
    "NanoClaw's image and runner, as they are, with NanoClaw's skill for Apple's container: the "
    "name host.docker.internal is Docker's alone",
)
_AGENT: Final = Support(
    "agent", "claw runs the group's agent itself and speaks NanoClaw's protocol for it"
)
_FILES: Final = (
    "it mounts single files into directories that are mounted, and a virtual machine shares "
    "directories only"
)
_NO_IMAGE: Final = "NanoClaw's runner is in a container's image, and local has no images"

TABLE: Final[dict[str, dict[Layout, Support]]] = {
    "docker": {"v1": _OWN, "v1 main": _OWN, "v2": _OWN},
    "apple": {
        "v1": _APPLES,
        "v1 main": Support("no", "a file that is shared would replace the project it lies in"),
        "v2": Support("no", "a file that is shared would replace the directory it lies in"),
    },
    "tart": {"v1": _AGENT, "v1 main": _AGENT, "v2": Support("no", _FILES)},
    "local": {"v1": _AGENT, "v1 main": _AGENT, "v2": Support("no", _NO_IMAGE)},
}
"""Runtime -> layout -> what becomes of it; a runtime of third parties is not in it."""
_UNKNOWN: Final = Support("no", "claw does not know what this runtime can share")


def support(layout: Layout, runtime: str) -> Support:
    """What becomes of a layout on a runtime."""
    return TABLE.get(runtime, {}).get(layout, _UNKNOWN)


def require(layout: Layout, runtime: str, group: str) -> Way:
    """The way in which a group runs.

    Raises:
        Refused: it cannot run there; nothing was started.
    """
    found = support(layout, runtime)
    if found.way == "no":
        able = [name for name in TABLE if support(layout, name).way != "no"]
        raise Refused(
            f"a group of layout {layout} cannot run on {runtime}: {found.why}",
            runtime=runtime,
            phase="assess",
            cleaned="nothing was started",
            remedy=f"give {group} one of {', '.join(able)} in claw.toml; see `claw nanoclaw table`",
        )
    return found.way


def rows() -> Iterator[tuple[str, str, str, str]]:
    """The table for people: runtime, layout, way, why."""
    for runtime in TABLE:
        for layout in LAYOUTS:
            found = support(layout, runtime)
            yield runtime, layout, found.way, found.why
