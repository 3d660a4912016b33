"""The ledger: one durable file per instance that exists or may exist, locked by its owner.

The flock of `<identity>.jsonl` is the owner's lease, which the kernel releases when the owner dies,
so nothing else decides who lives. The holder of the lease is the only writer and writes at a
position that it keeps itself: the file is preallocated, and appending would land behind that.
"""

from __future__ import annotations

import contextlib
import errno
import operator
import os
from pathlib import Path
from typing import Final

import attrs

from claw_core import durable, failpoints, lifeline, locks, statedir, vfs
from claw_core.entry import RESERVED, Content, Entry, State, held, parse, read
from claw_core.errors import LedgerUnavailable
from claw_core.intent import IDENTITY, Intent
from claw_core.lease import Lease
from claw_core.locks import InFlight
from claw_core.model import instance_name
from claw_core.statedir import default_state_directory, unavailable

__all__ = [
    "Entry",
    "InFlight",
    "Intent",
    "Lease",
    "Ledger",
    "State",
    "default_state_directory",
    "held",
]

_SUFFIX: Final = ".jsonl"
_BESIDE: Final = (".op", ".sock")
"""What may lie beside an entry, and belongs to it."""
_POST_INTENT = failpoints.declare("ledger.post-intent", "the intent is written, not durable")
_POST_SYNC = failpoints.declare("ledger.post-sync", "the intent's bytes are durable")
_POST_PREALLOCATE = failpoints.declare("ledger.post-preallocate", "space for hints is reserved")
_POST_RENAME = failpoints.declare(
    "ledger.post-rename", "the entry is visible, its name not durable"
)
_POST_DIRSYNC = failpoints.declare("ledger.post-dirsync", "the intent is durable")
_POST_CLAIM_LOCK = failpoints.declare(
    "ledger.post-claim-lock", "a dead owner's lease is taken over"
)
_POST_CLAIM = failpoints.declare("ledger.post-claim", "nothing of the dead owner is in flight")


@attrs.frozen(eq=False)
class Ledger:
    """The entries of one user in one state directory; safe for any number of processes at a time.

    Attributes:
        state: the state directory.
        directory: where the entries are.
        install: 8 hex digits in the name of every instance of this ledger.
    """

    state: Path
    directory: Path
    install: str

    @classmethod
    def open(cls, state: Path, *, create: bool = True) -> Ledger:
        """Open the ledger below a state directory.

        Args:
            state: the state directory.
            create: make it where it is missing; otherwise that is an error.

        Raises:
            LedgerUnavailable: the directory is on a shared file system, can be changed by someone
                else, cannot be used, or its install id is damaged.
        """
        state = Path(os.path.realpath(state))
        directory = state / "instances"
        return cls(state, directory, statedir.prepare(state, directory, create=create))

    def acquire(self, intent: Intent) -> Lease:
        """Make an intent durable and return its lease; only then may the first side effect happen.

        Raises:
            LedgerUnavailable: nothing was written, so nothing may be started.
            ConfigError: the runtime's settings are not JSON.
        """
        first = intent.to_line()
        path = self.directory / f"{intent.identity}.jsonl"
        temporary = self.directory / f".tmp-{intent.identity}"
        try:
            descriptor = locks.create_locked(temporary)
            try:
                _require_absent(path)
                durable.write_all(descriptor, first)
                failpoints.hit(_POST_INTENT)
                durable.sync_data(descriptor)
                failpoints.hit(_POST_SYNC)
                durable.preallocate(descriptor, RESERVED)
                failpoints.hit(_POST_PREALLOCATE)
            except BaseException:
                locks.discard(temporary, descriptor)
                raise
            try:
                vfs.rename(temporary, path)
                failpoints.hit(_POST_RENAME)
                durable.sync_directory(self.directory)
                failpoints.hit(_POST_DIRSYNC)
            except BaseException:
                locks.discard(temporary)
                locks.discard(path, descriptor)
                raise
        except OSError as error:
            raise unavailable(f"cannot make the intent of {intent.name} durable", error) from error
        return Lease(path, descriptor, Content(intent, end=len(first)))

    def scan(self, *, sweep: bool = True) -> list[Entry]:
        """Show every entry, oldest first, without taking any lease.

        Args:
            sweep: also remove what crashes left behind that stands for no instance.

        Raises:
            LedgerUnavailable: the directory cannot be read.
        """
        entries: list[Entry] = []
        now = vfs.wall_clock()
        try:
            folder = lifeline.open_kept(
                lambda: vfs.open_file(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            )
            try:
                for name in vfs.listdir(folder):
                    if name.endswith(_SUFFIX):
                        entry = self._look(folder, name, now)
                        if entry is not None:
                            entries.append(entry)
                    elif sweep and (name.startswith(".tmp-") or name.endswith(_BESIDE)):
                        self._sweep(name)
            finally:
                lifeline.close(folder)
        except OSError as error:
            raise unavailable(f"cannot read {self.directory}", error) from error
        entries.sort(key=operator.attrgetter("age"), reverse=True)
        return entries

    def claim(self, entry: Entry | str) -> Lease | None:
        """Take over the lease of a dead owner; never waits.

        Returns:
            None when someone holds the lease (for some microseconds, a look by `scan` does), or
            when the entry is gone.

        Raises:
            InFlight: the owner is dead, but a process that it started still holds the op-lock.
            LedgerUnavailable: the entry cannot be opened or read.
        """
        identity = entry if isinstance(entry, str) else entry.identity
        path = self.directory / f"{identity}.jsonl"
        op: int | None = None
        try:
            descriptor = locks.lock_existing(path)
            if descriptor is None:
                return None
            try:
                failpoints.hit(_POST_CLAIM_LOCK)
                op = locks.lock_op(path)
                content = parse(read(descriptor), identity, self.install)
                _require_intent(path, content)
                failpoints.hit(_POST_CLAIM)
                return Lease(path, descriptor, content, op)
            except BaseException:
                if op is not None:
                    lifeline.close(op)
                lifeline.close(descriptor)
                raise
        except OSError as error:
            raise unavailable(f"cannot claim {path}", error) from error

    def _look(self, folder: int, name: str, now: float) -> Entry | None:
        """Show one entry of the directory `folder`; None if it is gone.

        Raises:
            OSError: this process or the machine has too many open files.
        """
        identity = name.removesuffix(_SUFFIX)
        alive = False
        try:
            with lifeline.forbid_fork():
                descriptor = vfs.open_file(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
                try:
                    alive = locks.alive(descriptor)
                    if vfs.fstat(descriptor).st_nlink == 0:
                        return None
                    data = read(descriptor)
                finally:
                    vfs.close(descriptor)
            content = parse(data, identity, self.install)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                raise
            content = Content(error=f"it cannot be opened or read: {error.strerror}")
        intent, error_text = content.intent, content.error
        return Entry(
            directory=self.directory,
            identity=identity,
            name=instance_name(self.install, identity)
            if intent or IDENTITY.fullmatch(identity)
            else None,
            alive=alive,
            intent=intent,
            error=error_text and f"{error_text}; {_remedy(self.directory / name)}",
            state=content.state,
            facts=content.facts,
            detail=content.detail,
            age=max(0.0, now - (intent.started if intent else _modified(folder, name, now))),
        )

    def _sweep(self, name: str) -> None:
        """Remove a temporary file whose writer is dead, or what has outlived its entry."""
        path = self.directory / name
        # An entry exists before anything beside it, so no entry now means no entry any more.
        if name.endswith(_BESIDE) and vfs.exists(path.with_suffix(_SUFFIX)):
            return
        with contextlib.suppress(OSError):
            if name.endswith(".sock"):
                vfs.unlink(path)  # not a file, so nobody could have locked it
                return
            descriptor = locks.lock_existing(path)
            if descriptor is not None:
                locks.discard(path, descriptor)


def _require_absent(path: Path) -> None:
    if vfs.exists(path):
        raise FileExistsError(errno.EEXIST, "the identity is in use", str(path))


def _require_intent(path: Path, content: Content) -> None:
    if content.intent is None:
        raise LedgerUnavailable(f"{path}: {content.error}", remedy=_remedy(path))


def _modified(folder: int, name: str, default: float) -> float:
    try:
        return vfs.stat(name, dir_fd=folder).st_mtime
    except OSError:
        return default


def _remedy(path: Path) -> str:
    return f"see that the instance is gone, then remove {path}"
