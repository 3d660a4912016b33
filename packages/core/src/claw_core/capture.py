"""A sink that keeps what a command writes."""

from __future__ import annotations

from typing import Final

import attrs

from claw_core.errors import OutputLimitExceeded

CAPTURE_LIMIT: Final = 64 << 20
"""Bytes of each stream that a one-shot run keeps in memory before it gives up."""


@attrs.define(eq=False)
class Capture:
    """A sink that keeps everything, up to a limit.

    Raises:
        OutputLimitExceeded: on the chunk that passes the limit.
    """

    limit: int = CAPTURE_LIMIT
    data: bytearray = attrs.field(factory=bytearray, repr=False)

    async def __call__(self, chunk: bytes) -> None:
        """Keep a chunk."""
        if len(self.data) + len(chunk) > self.limit:
            raise OutputLimitExceeded(
                f"the command wrote more than {self.limit} bytes",
                phase="execute",
                remedy="pass a sink as stdout or stderr, which gets the chunks as they come",
            )
        self.data += chunk
