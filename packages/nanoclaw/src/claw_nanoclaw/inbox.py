"""Follow-up messages of a host, and its wish to end: files in the group's IPC directory.

The group's agent can write there as well. So nothing is read or removed through a link, and what
is no message stays where it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs

from claw_core.tasks import in_thread

CLOSE: Final = "_close"
LIMIT: Final = 32 << 20
"""Bytes of a message."""
PAUSE: Final = 0.2
"""Seconds between two looks; NanoClaw's own runner looks every 0.5 s."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Closed(Exception):
    """The host wants the group's agent to end."""


@attrs.define(eq=False)
class Inbox:
    """The directory `input` below a group's IPC directory.

    Attributes:
        directory: the group's IPC directory.
        notice: told about files that are no messages, once of each.
    """

    directory: Path
    notice: Callable[[str], None]
    _told: set[str] = attrs.field(init=False, factory=set)

    async def begin(self) -> list[str]:
        """Forget an old wish to end, and take the messages that came before the first prompt."""
        return await in_thread(self._begin)

    async def wait(self, until: float) -> list[str]:
        """Return the next messages, as soon as there are any.

        Args:
            until: the moment, on the monotonic clock, at which waiting ends.

        Raises:
            Closed: the host wants an end; messages that came too late for it stay.
            TimeoutError: nothing came in time.
        """
        while True:
            if await in_thread(self._closed):
                raise Closed
            if messages := await in_thread(self._take):
                return messages
            if time.monotonic() >= until:
                raise TimeoutError
            await asyncio.sleep(PAUSE)  # the host only leaves files, on whatever file system

    async def closed(self) -> bool:
        """Whether the host wants an end; it is asked no more then."""
        return await in_thread(self._closed)

    def _begin(self) -> list[str]:
        self._closed()
        return self._take()

    def _closed(self) -> bool:
        with self._opened() as folder:
            if folder is None:
                return False
            try:
                os.unlink(CLOSE, dir_fd=folder)
            except (FileNotFoundError, IsADirectoryError, PermissionError):
                return False
            return True

    def _take(self) -> list[str]:
        messages = []
        with self._opened() as folder:
            names = [] if folder is None else sorted(os.listdir(folder))  # noqa: PTH208 - a descriptor
            for name in names:
                if name.endswith(".json") and folder is not None:
                    text = self._message(name, folder)
                    if text is not None:
                        os.unlink(name, dir_fd=folder)
                        messages.append(text)
        return messages

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int | None]:
        """Open the directory anew: its agent may have put something else there."""
        with contextlib.ExitStack() as opened:
            folder: int | None = None
            for name in (str(self.directory), "input"):
                try:
                    folder = os.open(name, _DIRECTORY, dir_fd=folder)
                except OSError:  # it is not there, or no directory: then nothing is in it
                    folder = None
                    break
                opened.callback(os.close, folder)
            yield folder

    def _message(self, name: str, folder: int) -> str | None:
        try:
            value = json.loads(_read(name, folder))
            text = value["text"] if value["type"] == "message" else None
            if not isinstance(text, str) or not text.strip() or "\0" in text:
                raise ValueError("it is no message")  # noqa: TRY301 - said below, with all the others
        except FileNotFoundError:
            return None
        except (OSError, LookupError, TypeError, ValueError, RecursionError) as error:
            if name not in self._told:
                self._told.add(name)
                self.notice(f"{self.directory / 'input' / name} was left where it is: {error}")
            return None
        return text


def _read(name: str, folder: int) -> bytes:
    descriptor = os.open(name, _FILE, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LIMIT:
            raise ValueError("it is no regular file, or too large")
        return file.read(LIMIT)
