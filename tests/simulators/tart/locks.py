"""The two kinds of lock that Tart uses: POSIX on `config.json`, flock on directories."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
from collections.abc import Iterator

# struct flock: type, whence, start, len, pid on Linux; start, len, pid, type, whence on macOS.
FORMAT = "qqihh" if sys.platform == "darwin" else "hhqqi4x"


def holder(path: str) -> int:
    """The process that holds the write lock, or 0.

    Never for a file on which the caller itself holds the lock: closing any descriptor of a file
    gives up all POSIX locks that the process has on it.

    Raises:
        FileNotFoundError: it is gone.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if sys.platform == "darwin":
            asked = struct.pack(FORMAT, 0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
            return int(struct.unpack(FORMAT, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))[2])
        asked = struct.pack(FORMAT, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(FORMAT, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        return 0 if kind == fcntl.F_UNLCK else int(pid)
    finally:
        os.close(descriptor)


def take(path: str) -> int | None:
    """Take the write lock for as long as the returned descriptor is open; None if it is held."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def directory(path: str) -> Iterator[None]:
    """Hold the flock of a directory; waits for it without a limit, as Tart does."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def free(path: str) -> bool:
    """Whether nobody holds the flock of this directory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
