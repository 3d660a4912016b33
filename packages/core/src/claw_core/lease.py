"""The lease: what the one process that holds an entry may do with it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from claw_core import durable, failpoints, lifeline, locks, vfs
from claw_core.entry import OWNER, Content, State
from claw_core.errors import LedgerUnavailable
from claw_core.intent import encoded
from claw_core.statedir import unavailable

_SYNCED: Final = frozenset({"limbo", "quarantined", "held", "gone"})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_PRE_RECORD = failpoints.declare("ledger.pre-record", "a fact is about to be written")
_POST_RECORD = failpoints.declare("ledger.post-record", "a fact is durable")
_PRE_MARK = failpoints.declare("ledger.pre-mark", "a state is about to be written")
_POST_MARK = failpoints.declare("ledger.post-mark", "a state is written")
_PRE_RELEASE = failpoints.declare("ledger.pre-release", "the instance is gone, its entry is not")
_POST_UNLINK_OP = failpoints.declare("ledger.post-unlink-op", "the op-lock's file is removed")
_POST_UNLINK = failpoints.declare("ledger.post-unlink", "the entry is removed, not durably")
_POST_UNLINK_DIRSYNC = failpoints.declare("ledger.post-unlink-dirsync", "the removal is durable")


class Lease:
    """This process's hold on one instance, from `Ledger.acquire` or `Ledger.claim`, usable once.

    As a context manager it abandons the entry on the way out unless it was released before. In a
    forked child it is spent from the start.
    """

    def __init__(
        self, path: Path, descriptor: int, content: Content, op: int | None = None
    ) -> None:
        assert content.intent is not None
        self.intent = content.intent
        self.facts = content.facts
        self.state = content.state
        self.detail: Mapping[str, Any] = content.detail
        self._path = path
        self._descriptor: int | None = descriptor
        self._op = op
        self._end = content.end
        self._torn = content.torn
        self._process = os.getpid()

    @property
    def name(self) -> str:
        """The name of the instance."""
        return self.intent.name

    @property
    def socket(self) -> Path:
        """Where the owner may take commands of others; `release` removes it."""
        return self._path.with_suffix(".sock")

    @property
    def held(self) -> bool:
        """Whether this process still holds the lease."""
        return self._descriptor is not None and self._process == os.getpid()

    def record(self, key: str, value: str) -> None:
        """Make a non-secret fact durable before the effect that a later process must undo.

        Raises:
            LedgerUnavailable: the fact is not durable, so the effect must not happen.
        """
        failpoints.hit(_PRE_RECORD)
        try:
            self._write({"fact": [key, value]}, sync=True)
        except OSError as error:
            raise unavailable(f"cannot record {key!r} of {self.name}", error) from error
        failpoints.hit(_POST_RECORD)
        self.facts[key] = value

    def mark(self, state: State, **detail: Any) -> bool:
        """Note a state, and return whether it was written; a note is a hint for people and reapers.

        `limbo`, `quarantined`, `held` and `gone` are also synced. A full disk never stands in the
        way of a teardown: a note that is lost costs at most that a reaper starts over.

        Raises:
            LedgerUnavailable: `held` is not durable, so a reaper would delete the instance.
        """
        failpoints.hit(_PRE_MARK)
        self.state, self.detail = state, detail
        try:
            self._write({"state": state, "detail": detail}, sync=state in _SYNCED)
        except OSError as error:
            if state == "held":
                raise unavailable(f"cannot keep {self.name}", error) from error
            return False
        failpoints.hit(_POST_MARK)
        return True

    def hold(self, seconds: float, **detail: Any) -> None:
        """Let the instance be kept for `seconds`; reapers skip it until then. `abandon` it next.

        Raises:
            LedgerUnavailable: that could not be made durable.
        """
        until, wall = vfs.boottime() + seconds, vfs.wall_clock() + seconds
        self.mark("held", boot=vfs.boot_id(), until=until, wall=wall, **detail)

    def resume(self) -> None:
        """Let what was kept be this process's like any other, before it is started again.

        Raises:
            LedgerUnavailable: that cannot be noted; the lease has ended, and it stays kept.
        """
        with contextlib.ExitStack() as otherwise:
            otherwise.callback(self.abandon)
            self.record(OWNER, str(os.getpid()))
            if not self.mark("running"):
                raise LedgerUnavailable(f"cannot note that {self.name} is started again")
            otherwise.pop_all()

    def op_lock(self) -> int:
        """Return the descriptor that a child inherits while its effect is in flight.

        Nobody can claim the instance while any process has it, even after this process is dead.
        It is not inherited unless passed on explicitly, and belongs to the lease: do not close it.

        Raises:
            LedgerUnavailable: it cannot be created.
        """
        self._require()
        if self._op is None:
            try:
                self._op = locks.create_op(self._path)
            except OSError as error:
                raise unavailable(f"cannot take the op-lock of {self.name}", error) from error
        return self._op

    def release(self) -> None:
        """Remove the entry, since the instance was seen to be gone, and end the lease.

        A crash, or a full disk, leaves at worst an entry that is reaped again, which is harmless.

        Raises:
            LedgerUnavailable: the entry could not be removed; the lease has ended all the same.
        """
        self._require()
        try:
            failpoints.hit(_PRE_RELEASE)
            durable.remove(self.socket)
            durable.remove(self._path.with_suffix(".op"))
            failpoints.hit(_POST_UNLINK_OP)
            durable.remove(self._path)
            failpoints.hit(_POST_UNLINK)
            # Not durable means only that it may come back after a power loss, and is reaped again.
            with contextlib.suppress(OSError):
                durable.sync_directory(self._path.parent)
            failpoints.hit(_POST_UNLINK_DIRSYNC)
        except OSError as error:
            if error.errno not in _FULL:  # some file systems need space to remove a name
                raise unavailable(f"cannot remove the entry of {self.name}", error) from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """End the lease and leave the entry for others to claim; harmless when repeated."""
        op, descriptor = self._op, self._descriptor
        self._op = self._descriptor = None
        if self._process != os.getpid():
            return  # the fork has closed them, and their numbers may be something else by now
        if op is not None:
            lifeline.close(op)
        if descriptor is not None:
            lifeline.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abandon()

    def _require(self) -> int:
        if self._descriptor is None or self._process != os.getpid():
            raise LedgerUnavailable(f"this process does not hold {self.name} any more")
        return self._descriptor

    def _write(self, value: Mapping[str, Any], *, sync: bool) -> None:
        descriptor = self._require()
        line = (b"\n" if self._torn else b"") + encoded(value)
        self._torn = True
        written = 0
        while written < len(line):
            count = vfs.pwrite(descriptor, line[written:], self._end)
            written += count
            self._end += count
        self._torn = False
        if sync:
            durable.sync_data(descriptor)
