"""Descriptors that must die with this process: leases, op-locks, lifeline pipes, control sockets.

Somebody learns of our death from the kernel closing them. A child made by `exec` does not have them
(they are close-on-exec); a child made by a bare `fork`, such as a `multiprocessing` worker, would
keep them open after our death, so it closes them at once. It closes and never unlocks: the lock
belongs to the open file that parent and child share.

`subprocess` with `preexec_fn` also runs these handlers, so it cannot pass a kept descriptor on.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from claw_core import vfs

_kept: set[int] = set()
_lock = threading.RLock()


def keep(descriptor: int) -> int:
    """Register a descriptor, and return it; from now on only `lifeline.close` may close it."""
    with _lock:
        _kept.add(descriptor)
    return descriptor


def open_kept(opener: Callable[[], int]) -> int:
    """Open and register in one step that no `fork` of another thread can come between."""
    with _lock:
        descriptor = opener()
        _kept.add(descriptor)
        return descriptor


def forbid_fork() -> AbstractContextManager[object]:
    """Let no thread fork meanwhile: for a descriptor that lives for microseconds."""
    return _lock


def close(descriptor: int) -> None:
    """Close a registered descriptor; does nothing if it is not registered (any more)."""
    with _lock:
        if descriptor in _kept:
            _kept.discard(descriptor)
            vfs.close(descriptor)


def holds(descriptor: int) -> bool:
    """Whether this process still has the descriptor; false in a forked child."""
    return descriptor in _kept


def pipe() -> tuple[int, int]:
    """Make a pipe and return its ends for reading and writing.

    Whoever holds the reading end sees the end of file when this process closes the writing end or
    dies. Only the writing end is registered.
    """
    with _lock:
        reading, writing = os.pipe()
        _kept.add(writing)
        return reading, writing


def _close_in_child() -> None:
    for descriptor in _kept:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _kept.clear()
    _lock.release()


# The lock is held over the fork, so that the child sees a whole registry and no descriptor is
# between being opened and being registered.
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_close_in_child
)
