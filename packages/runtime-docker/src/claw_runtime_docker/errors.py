"""How an engine fails: it is not there, it says no, or it does not speak as it should."""

from __future__ import annotations

from claw_core.errors import RuntimeFault


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
        super().__init__(f"the engine refused {asked}: {said} (status {status})", remedy=remedy)
        self.status = status
        self.said = said
