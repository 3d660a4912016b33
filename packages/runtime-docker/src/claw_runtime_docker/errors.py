"""How an engine fails: it is not there, it says no, or it does not speak as it should."""

from __future__ import annotations

from typing import Final

from claw_core.errors import RuntimeFault

NOT_FOUND: Final = 404
"""Status of an answer about what is not there."""
CONFLICT: Final = 409
"""Status of an answer about what is taken, or not in the right state."""

_REMEDIES: Final = {
    "executable file not found": "use an image that has `sh` on its PATH",
    "nknown or invalid runtime": "correct the setting oci_runtime",
    "No such image": "see `docker images`, and pull the image",
    "could not find bridge": "restart the engine: its network bridge is gone",
    "no space left": "free disk space of the engine, for instance with docker system prune",
}


class EngineUnavailable(RuntimeFault):
    """No engine answers at the endpoint."""


class EngineBroken(RuntimeFault):
    """The engine hung, closed a connection too early, or sent what is no answer.

    Whether it did what it was asked is unknown.
    """


class EngineError(RuntimeFault):
    """The engine answered with an error.

    Args:
        status: of the HTTP response.
        said: the engine's own words.
        asked: what it was asked for.
        remedy: what the user can do.
    """

    def __init__(self, status: int, said: str, asked: str, remedy: str | None = None) -> None:
        remedy = remedy or next(
            (one for text, one in _REMEDIES.items() if text in said), "see the engine's log"
        )
        super().__init__(f"the engine refused {asked}: {said} (status {status})", remedy=remedy)
        self.status = status
        self.said = said
