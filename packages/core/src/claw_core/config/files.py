"""Reading configuration files that somebody else may have put there."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

LIMIT: Final = 1 << 20
"""Bytes of a configuration file; what is larger is no configuration."""


class Unreadable(Exception):
    """A file is there and cannot be used; the text says why, without its content."""


def read(path: Path, *, trusted: bool) -> str | None:
    """Return the text of a file, or None where there is none.

    Args:
        path: the file.
        trusted: whether only its owner can change it. Where an agent can, a symlink is refused: it
            would make claw read, and quote in its errors, what the agent may not see.

    Raises:
        Unreadable: it is not a regular file, too large, not UTF-8, or cannot be read; or a trusted
            one belongs to somebody else, or anybody can change it.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if trusted else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise Unreadable("it is a symbolic link that leads nowhere") from None
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Unreadable("it is a symbolic link; put the file itself there") from None
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    try:
        _check(os.fstat(descriptor), trusted=trusted)
        data = b""
        while chunk := os.read(descriptor, LIMIT + 1 - len(data)):
            data += chunk
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(data) > LIMIT:
        raise Unreadable(f"it is larger than {LIMIT >> 20} MB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"it is not UTF-8 (byte {error.start})") from None


def _check(status: os.stat_result, *, trusted: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("it is not a regular file")
    if trusted and status.st_uid not in {0, os.geteuid()}:
        raise Unreadable(f"it belongs to the user {status.st_uid}; take it over (chown)")
    if trusted and status.st_mode & stat.S_IWOTH:
        raise Unreadable("anybody can change it; forbid that (chmod o-w)")
