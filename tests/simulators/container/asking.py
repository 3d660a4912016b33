"""What several commands ask the server in the same way."""

from __future__ import annotations

import contextlib
import os

from simulators.container import xpc
from simulators.container.errors import INTERRUPTED, INVALID, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simulators.container.call import Call


def get(call: Call, name: str) -> dict[str, Any]:
    """A container that must be there."""
    call.container = name
    found = find(call, name)
    if found is None:
        raise Failure("notFound", f"get failed: container {name} not found")
    return found


def find(call: Call, name: str) -> dict[str, Any] | None:
    """A container, or None."""
    found = listed(call)
    return next((one for one in found if one["configuration"]["id"] == name), None)


def listed(call: Call) -> list[dict[str, Any]]:
    """All containers, as the server believes them to be."""
    try:
        found: list[dict[str, Any]] = xpc.ask(call, "containers")
    except Failure as error:
        if error.message in {INVALID, INTERRUPTED}:
            text = "failed to list containers"
            raise Failure("internalError", text, error, coded=True) from None
        raise
    return found


def write(descriptor: int, data: bytes) -> None:
    """Write all of it."""
    while data:
        data = data[os.write(descriptor, data) :]


def quietly(call: Call, request: str, *arguments: Any) -> None:
    """Make a request of which nobody hears how it ended."""
    with contextlib.suppress(Failure):
        xpc.ask(call, request, *arguments)
