"""Files whose flock says that somebody is at work; held by their process, and dying with it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from claw_core import failpoints, lifeline, vfs
from claw_core.errors import ClawError

_PRE_OPEN = failpoints.declare("ledger.pre-open", "nothing exists yet")
_POST_OPEN = failpoints.declare("ledger.post-open", "the temporary file exists, unlocked")
_POST_FLOCK = failpoints.declare("ledger.post-flock", "the temporary file is locked and empty")
_POST_OP_OPEN = failpoints.declare("ledger.post-op-open", "the op-lock's file exists, unlocked")
_POST_OP_LOCK = failpoints.declare("ledger.post-op-lock", "the op-lock is held")


class InFlight(ClawError):
    """The owner is dead, but a process that it started may still create the instance."""


def alive(descriptor: int) -> bool:
    """Whether someone holds the lock; a shared lock, so that looks do not disturb each other."""
    try:
        vfs.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def take(descriptor: int) -> bool:
    """Lock an open file or directory for this process alone; false where somebody has it."""
    try:
        vfs.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def create_locked(path: Path) -> int:
    """Create a file that this process holds; a sweep in between only costs a repetition."""
    for _ in range(100):
        failpoints.hit(_PRE_OPEN)
        descriptor = lifeline.open_kept(
            lambda: vfs.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        )
        try:
            failpoints.hit(_POST_OPEN)
            # Only a sweep can hold it, and it removes the file before it lets go.
            vfs.flock(descriptor, fcntl.LOCK_EX)
            if vfs.fstat(descriptor).st_nlink:
                failpoints.hit(_POST_FLOCK)
                return descriptor
        except BaseException:
            discard(path, descriptor)
            raise
        lifeline.close(descriptor)
    raise OSError(errno.EBUSY, "other processes keep removing the temporary file", str(path))


def lock_existing(path: Path) -> int | None:
    """Lock a file if it is still there and nobody holds it."""
    try:
        descriptor = lifeline.open_kept(lambda: vfs.open_file(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return None
    try:
        vfs.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine, there = vfs.fstat(descriptor), vfs.stat(path)
        if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino) and mine.st_nlink:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass  # held by someone, or finished by someone between opening and locking
    except BaseException:
        lifeline.close(descriptor)
        raise
    lifeline.close(descriptor)
    return None


def create_op(path: Path) -> int:
    """Create and lock the op-lock of an entry whose lease is held.

    Raises:
        OSError: that is not possible.
    """
    op = lifeline.open_kept(
        lambda: vfs.open_file(path.with_suffix(".op"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    )
    try:
        failpoints.hit(_POST_OP_OPEN)
        vfs.flock(op, fcntl.LOCK_EX | fcntl.LOCK_NB)
        failpoints.hit(_POST_OP_LOCK)
    except BaseException:
        lifeline.close(op)
        raise
    return op


def lock_op(path: Path) -> int | None:
    """Lock the op-lock of an entry whose lease is held; None when there is none.

    Raises:
        InFlight: some process still has it.
    """
    try:
        op = lifeline.open_kept(
            lambda: vfs.open_file(path.with_suffix(".op"), os.O_RDWR | os.O_CLOEXEC)
        )
    except FileNotFoundError:
        return None
    try:
        vfs.flock(op, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lifeline.close(op)
        raise InFlight("a process of the dead owner is still at work on it") from None
    except BaseException:
        lifeline.close(op)
        raise
    return op


def discard(path: Path, descriptor: int | None = None) -> None:
    """Remove a file that stands for nothing, if possible, and only then let go of its lock."""
    with contextlib.suppress(OSError):
        vfs.unlink(path)
    if descriptor is not None:
        lifeline.close(descriptor)
