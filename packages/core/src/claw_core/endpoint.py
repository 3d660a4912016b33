"""Where the owner of an instance takes commands of others: a socket beside the entry in the ledger.

It is there while the session is open. What comes by it is the work of `serving`, which is imported
with the first connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from claw_core import lifeline

if TYPE_CHECKING:
    from claw_core.session import Session

CLOSE_TIMEOUT: Final = 6.0
"""Seconds that the commands of others have to end before the teardown goes on without them."""
_LIMIT: Final = 107 if sys.platform == "linux" else 103
"""Bytes of the longest path that the address of a socket can hold."""

_log = logging.getLogger("claw")


@attrs.define(eq=False)
class Endpoint:
    """The open socket of one session."""

    path: Path
    _session: Session
    _listening: socket.socket
    _answers: set[asyncio.Task[None]] = attrs.field(init=False, factory=set)

    @classmethod
    def open(cls, path: Path, session: Session) -> Endpoint:
        """Listen, for this user alone.

        Raises:
            OSError: that is not possible here.
        """
        with lifeline.forbid_fork():
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            lifeline.keep(listening.fileno())
        try:
            listening.setblocking(False)
            with address(path) as name:
                listening.bind(name)
            # Nobody else gets into its directory either.
            path.chmod(0o600)
            listening.listen()
            endpoint = cls(path, session, listening)
            asyncio.get_running_loop().add_reader(listening, endpoint._accept)
        except BaseException:
            lifeline.close(listening.detach())
            raise
        return endpoint

    async def close(self) -> None:
        """End every command that came by it, and remove it; takes `CLOSE_TIMEOUT` at most."""
        self._stop_listening()
        for answer in self._answers:
            answer.cancel()
        if self._answers:
            await asyncio.wait(self._answers, timeout=CLOSE_TIMEOUT)

    def _stop_listening(self) -> None:
        if self._listening.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._listening)
            lifeline.close(self._listening.detach())
            with contextlib.suppress(OSError):  # then whoever removes the entry removes it
                self.path.unlink()

    def _accept(self) -> None:
        try:
            with lifeline.forbid_fork():
                connection, _ = self._listening.accept()
                lifeline.keep(connection.fileno())
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            # No descriptors left, for instance: it would be ready again at once, and for ever.
            _log.warning("no more commands of others for %s: %s", self._session.name, error)
            self._stop_listening()
            return
        answer = asyncio.create_task(self._answer(connection))
        self._answers.add(answer)
        answer.add_done_callback(self._answered)

    async def _answer(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            if _user(connection) == os.geteuid():
                from claw_core import serving

                await serving.answer(connection, self._session)
        finally:
            lifeline.close(connection.detach())

    def _answered(self, answer: asyncio.Task[None]) -> None:
        self._answers.discard(answer)
        if not answer.cancelled() and (error := answer.exception()) is not None:
            _log.error("a command of another process for %s: %r", self._session.name, error)


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """The address of a socket, also where its path is too long for one.

    Raises:
        OSError: it is too long, and this system offers no way around.
    """
    if len(os.fsencode(path)) <= _LIMIT:
        yield str(path)
        return
    if sys.platform != "linux":
        raise OSError(errno.ENAMETOOLONG, f"the path of the state directory is too long: {path}")
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _user(connection: socket.socket) -> int:
    """Who is at the other end."""
    if sys.platform == "linux":
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("iII", credentials)[1])
    if sys.platform == "darwin":
        # SOL_LOCAL, LOCAL_PEERCRED: struct xucred begins with a version and the user.
        return int(struct.unpack_from("II", connection.getsockopt(0, 1, 76))[1])
    return os.geteuid()  # only the modes of the directory and the socket say so
