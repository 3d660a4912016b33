"""What goes wrong, in the words of the command."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INTERRUPTED = "XPC connection error: Connection interrupted"
"""What a client hears whose server, or helper, has died."""
INVALID = "XPC connection error: Connection invalid"
"""What a client hears that finds no server."""
HINT = "Ensure container system service has been started with `container system start`."


class Exit(Exception):
    """The end of the command, with a code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class UsageError(Exception):
    """The arguments cannot be parsed: code 64, and a line of usage."""


class Failure(Exception):
    """Whatever else fails: code 1, and a message.

    Args:
        code: the kind, such as `notFound`.
        message: what a person reads.
        cause: what brought it about.
        coded: whether the kind is part of what a person reads.
        extra: lines that follow.
    """

    def __init__(
        self,
        code: str,
        message: str,
        cause: Failure | None = None,
        *,
        coded: bool = False,
        extra: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.cause = code, message, cause
        self.coded, self.extra = coded, extra

    def __str__(self) -> str:
        cause = f' (cause: "{self.cause.full()}")' if self.cause else ""
        coded = self.coded or self.code == "interrupted"
        text = f'{self.code}: "{self.message}"' if coded else self.message
        return "\n".join([text + cause, *self.extra])

    def full(self) -> str:
        """The form that tells the kind."""
        cause = f' (cause: "{self.cause.full()}")' if self.cause else ""
        return f'{self.code}: "{self.message}"{cause}'

    def to_json(self) -> dict[str, Any]:
        """What travels from the server to its client."""
        cause = self.cause.to_json() if self.cause else None
        return {"code": self.code, "message": self.message, "cause": cause}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Failure:
        """The failure that `to_json` wrote."""
        cause = cls.from_json(value["cause"]) if value["cause"] else None
        return cls(value["code"], value["message"], cause)


def no_container(name: str) -> Failure:
    """Nobody knows the container, says the server."""
    return Failure("notFound", f"container with ID {name} not found")


def unsupported(what: str) -> Exit:
    """What is left out of this simulator ends a command with 70."""
    os.write(2, f"not simulated: {what}\n".encode())
    return Exit(70)
