"""The host's end of a command's leash: signals go down, reports come up, its end ends all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import Any

from claw_core.errors import SpentInstance

END_TIMEOUT = 5.0
"""Seconds that a supervisor has to end a command's processes."""
_RELEASE = b"\0"


class Leash:
    """One command's leash; its supervisor holds the other end.

    Args:
        channel: a stream socket that the caller closes.
    """

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._received = b""

    async def line(self) -> dict[str, Any] | None:
        """The next report; None when the supervisor is gone."""
        loop = asyncio.get_running_loop()
        while b"\n" not in self._received:
            try:
                chunk = await loop.sock_recv(self._channel, 1 << 16)
            except ConnectionResetError:
                return None
            if not chunk:
                return None
            self._received += chunk
        text, _, self._received = self._received.partition(b"\n")
        report: dict[str, Any] = json.loads(text)
        return report

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group, if it still runs."""
        if 0 < number < 256:
            self._send(bytes([number]))

    def release(self) -> None:
        """The command has ended; what it left behind may live on."""
        self._send(_RELEASE)

    async def end(self, verdict: asyncio.Task[dict[str, Any] | None]) -> None:
        """Let the supervisor end everything, and return when it has.

        Args:
            verdict: the task that waits for the first report.

        Raises:
            SpentInstance: it does not say that it has.
        """
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        try:
            async with asyncio.timeout(END_TIMEOUT):
                report = await verdict
                while report is not None and not {"over", "failed"} & set(report):
                    report = await self.line()
        except TimeoutError:
            report = None
        if report is None:
            raise SpentInstance(
                "nobody can tell whether the processes of the command have ended",
                phase="execute",
                remedy="leave the session; its teardown ends them",
            )

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone, which its report will tell
            self._channel.send(data)
