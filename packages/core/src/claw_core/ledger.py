"""The ledger: one durable file per instance that exists or may exist, locked by its owner.

A file `<identity>.jsonl` holds one JSON object per line: first the intent, then hints. Its flock is
the owner's lease, which the kernel releases when the owner dies, so nothing else decides who lives.
The holder of the lease is the only writer and writes at a position that it keeps itself: the file
is preallocated (its tail reads as NUL, which readers skip), and appending would land behind that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias

import attrs

from claw_core import durable, failpoints, lifeline
from claw_core.errors import ClawError, ConfigError, LedgerUnavailable
from claw_core.model import INSTANCE_PREFIX, instance_name

State: TypeAlias = Literal["running", "stopping", "limbo", "quarantined", "held", "gone"]

VERSION: Final = 1
RESERVED: Final = 4096
"""Bytes that an entry occupies from the start, so that a full disk does not stop a teardown."""

_SYNCED: Final = frozenset({"limbo", "quarantined", "held", "gone"})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_IDENTITY: Final = re.compile(r"[0-9a-f]{32}")
_INSTALL: Final = re.compile(r"[0-9a-f]{8}")
_REMEDIES: Final = {
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "free some of your disk quota",
    errno.EROFS: "it is mounted read-only: set CLAW_STATE to a directory on a writable local disk",
    errno.EACCES: "make the state directory yours (chown) and accessible (chmod 700)",
    errno.EPERM: "make the state directory yours (chown) and accessible (chmod 700)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close some programs: the machine has no open files left",
}

_PRE_OPEN = failpoints.declare("ledger.pre-open", "nothing exists yet")
_POST_OPEN = failpoints.declare("ledger.post-open", "the temporary file exists, unlocked")
_POST_FLOCK = failpoints.declare("ledger.post-flock", "the temporary file is locked and empty")
_POST_INTENT = failpoints.declare("ledger.post-intent", "the intent is written, not durable")
_POST_SYNC = failpoints.declare("ledger.post-sync", "the intent's bytes are durable")
_POST_PREALLOCATE = failpoints.declare("ledger.post-preallocate", "space for hints is reserved")
_POST_RENAME = failpoints.declare(
    "ledger.post-rename", "the entry is visible, its name not durable"
)
_POST_DIRSYNC = failpoints.declare("ledger.post-dirsync", "the intent is durable")
_PRE_RECORD = failpoints.declare("ledger.pre-record", "a fact is about to be written")
_POST_RECORD = failpoints.declare("ledger.post-record", "a fact is durable")
_PRE_MARK = failpoints.declare("ledger.pre-mark", "a state is about to be written")
_POST_MARK = failpoints.declare("ledger.post-mark", "a state is written")
_POST_OP_OPEN = failpoints.declare("ledger.post-op-open", "the op-lock's file exists, unlocked")
_POST_OP_LOCK = failpoints.declare("ledger.post-op-lock", "the op-lock is held")
_PRE_RELEASE = failpoints.declare("ledger.pre-release", "the instance is gone, its entry is not")
_POST_UNLINK_OP = failpoints.declare("ledger.post-unlink-op", "the op-lock's file is removed")
_POST_UNLINK = failpoints.declare("ledger.post-unlink", "the entry is removed, not durably")
_POST_UNLINK_DIRSYNC = failpoints.declare("ledger.post-unlink-dirsync", "the removal is durable")
_POST_CLAIM_LOCK = failpoints.declare(
    "ledger.post-claim-lock", "a dead owner's lease is taken over"
)
_POST_CLAIM = failpoints.declare("ledger.post-claim", "nothing of the dead owner is in flight")


class InFlight(ClawError):
    """The owner is dead, but a process that it started may still create the instance."""


@attrs.frozen
class Intent:
    """What its owner was about to do: all that a fresh process needs to undo it.

    Attributes:
        identity: 32 hex digits, random, never reused.
        install: 8 hex digits that tell this ledger's instances from those of others.
        runtime: name of the runtime.
        settings: what the runtime is made from; JSON, no secrets.
        group: the group it runs for.
        image: what the runtime starts from.
        settle: seconds after the owner's death within which a creation may still come to light.
        boot: identifies the boot in which it was written.
        owner: process id of the owner, for people only.
        started: wall-clock time in seconds since 1970, for people only.
        digest: SHA-256 of the command, for people only.
    """

    identity: str
    install: str
    runtime: str
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    group: str | None = None
    image: str | None = None
    settle: float = 0.0
    boot: str = ""
    owner: int = 0
    started: float = 0.0
    digest: str = ""

    @classmethod
    def new(
        cls,
        install: str,
        runtime: str,
        settings: Mapping[str, Any] | None = None,
        *,
        group: str | None = None,
        image: str | None = None,
        settle: float = 0.0,
        argv: Sequence[str] = (),
        identity: str | None = None,
    ) -> Intent:
        """Make an intent of this process, with an identity that never existed before."""
        return cls(
            identity=identity or secrets.token_hex(16),
            install=install,
            runtime=runtime,
            settings=dict(settings or {}),
            group=group,
            image=image,
            settle=settle,
            boot=durable.boot_id(),
            owner=os.getpid(),
            started=time.time(),
            digest=hashlib.sha256("\0".join(argv).encode(errors="surrogateescape")).hexdigest(),
        )

    @property
    def name(self) -> str:
        """The name of the instance."""
        return instance_name(self.install, self.identity)

    def to_json(self) -> dict[str, Any]:
        """The intent as plain JSON values."""
        return {key: getattr(self, key) for key in _FIELDS}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Intent:
        """Read an intent, ignoring keys that a later version may have added.

        Raises:
            KeyError, TypeError, ValueError: something is missing or is not what it should be.
        """
        for key, kind in _TYPES:
            if not isinstance(value[key], kind):
                raise TypeError(f"{key} has the wrong type")
        if not _IDENTITY.fullmatch(value["identity"]) or not _INSTALL.fullmatch(value["install"]):
            raise ValueError("it has no valid identity")
        return cls(*[value[key] for key in _FIELDS])


_FIELDS: Final = tuple(field.name for field in attrs.fields(Intent))
# Tuples of types take a third of the time that unions take.
_TYPES: Final[tuple[tuple[str, Any], ...]] = (
    *((key, str) for key in ("identity", "install", "runtime", "boot", "digest")),
    *((key, (str, type(None))) for key in ("group", "image")),
    *((key, (int, float)) for key in ("settle", "owner", "started")),
    ("settings", dict),
)


@attrs.define(eq=False)
class _Content:
    """What a file says; `error` is set when its intent cannot be read."""

    intent: Intent | None = None
    error: str | None = None
    facts: dict[str, str] = attrs.field(factory=dict)
    state: str = "intent"
    detail: dict[str, Any] = attrs.field(factory=dict)
    end: int = 0
    torn: bool = False


@attrs.frozen(eq=False)
class Entry:
    """What a look at the ledger shows of one instance.

    Attributes:
        directory: where its file is.
        identity: as the file name has it.
        name: name of the instance, None when even the file name is damaged.
        alive: whether someone, its owner or a reaper, holds the lease.
        intent: None when it cannot be read; `error` then says why and what to do.
        error: see `intent`.
        state: `intent`, or what was marked last.
        facts: what was recorded.
        detail: what was marked together with the state.
        age: seconds by the wall clock, for people only.
    """

    directory: Path
    identity: str
    name: str | None
    alive: bool
    intent: Intent | None
    error: str | None
    state: str
    facts: Mapping[str, str]
    detail: Mapping[str, Any]
    age: float

    @property
    def path(self) -> Path:
        """Its file."""
        return self.directory / f"{self.identity}.jsonl"

    @property
    def runtime(self) -> str | None:
        """Name of its runtime, where known."""
        return self.intent.runtime if self.intent else None

    @property
    def reapable(self) -> bool:
        """Whether a reaper has something to do here: a dead owner, and nothing that forbids it."""
        return not self.alive and self.intent is not None and not held(self.state, self.detail)


def held(state: str, detail: Mapping[str, Any]) -> bool:
    """Whether an instance is being kept on purpose and its time is not over.

    Within one boot `boottime` decides; after a reboot only the wall clock is left to ask.
    """
    if state != "held":
        return False
    if detail.get("boot") == durable.boot_id():
        return durable.boottime() < float(detail.get("until", 0.0))
    return time.time() < float(detail.get("wall", 0.0))


class Lease:
    """This process's hold on one instance, from `Ledger.acquire` or `Ledger.claim`, usable once.

    As a context manager it abandons the entry on the way out unless it was released before. In a
    forked child it is spent from the start.
    """

    def __init__(
        self, path: Path, descriptor: int, content: _Content, op: int | None = None
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
            raise _unavailable(f"cannot record {key!r} of {self.name}", error) from error
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
                raise _unavailable(f"cannot keep {self.name}", error) from error
            return False
        failpoints.hit(_POST_MARK)
        return True

    def hold(self, seconds: float, **detail: Any) -> None:
        """Let the instance be kept for `seconds`; reapers skip it until then. `abandon` it next.

        Raises:
            LedgerUnavailable: that could not be made durable.
        """
        until, wall = durable.boottime() + seconds, time.time() + seconds
        self.mark("held", boot=durable.boot_id(), until=until, wall=wall, **detail)

    def op_lock(self) -> int:
        """Return the descriptor that a child inherits while its effect is in flight.

        Nobody can claim the instance while any process has it, even after this process is dead.
        It is not inherited unless passed on explicitly, and belongs to the lease: do not close it.

        Raises:
            LedgerUnavailable: it cannot be created.
        """
        self._require()
        if self._op is None:
            path = self._path.with_suffix(".op")
            try:
                op = lifeline.open_kept(
                    lambda: os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                )
                try:
                    failpoints.hit(_POST_OP_OPEN)
                    fcntl.flock(op, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BaseException:
                    lifeline.close(op)
                    raise
            except OSError as error:
                raise _unavailable(f"cannot take the op-lock of {self.name}", error) from error
            self._op = op
            failpoints.hit(_POST_OP_LOCK)
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
            self._path.with_suffix(".op").unlink(missing_ok=True)
            failpoints.hit(_POST_UNLINK_OP)
            self._path.unlink(missing_ok=True)
            failpoints.hit(_POST_UNLINK)
            # Not durable means only that it may come back after a power loss, and is reaped again.
            with contextlib.suppress(OSError):
                durable.sync_directory(self._path.parent)
            failpoints.hit(_POST_UNLINK_DIRSYNC)
        except OSError as error:
            if error.errno not in _FULL:  # some file systems need space to remove a name
                raise _unavailable(f"cannot remove the entry of {self.name}", error) from error
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
        line = (b"\n" if self._torn else b"") + _line(value)
        self._torn = True
        written = 0
        while written < len(line):
            count = os.pwrite(descriptor, line[written:], self._end)
            written += count
            self._end += count
        self._torn = False
        if sync:
            durable.sync_data(descriptor)


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
    def open(cls, state: Path) -> Ledger:
        """Open the ledger below a state directory, which is created where missing.

        Raises:
            LedgerUnavailable: the directory is on a shared file system, can be changed by someone
                else, cannot be used, or its install id is damaged.
        """
        state = Path(os.path.realpath(state))
        directory = state / "instances"
        try:
            durable.refuse_shared_filesystem(state)
            missing = [path for path in state.parents if not path.exists()]
            for path in (*reversed(missing), state, directory):
                if not path.is_dir():
                    path.mkdir(mode=0o700, exist_ok=True)
                    durable.sync_directory(path.parent)
            for path in (state, directory):
                _check_owner(path)
            return cls(state, directory, _install(state / "install"))
        except OSError as error:
            raise _unavailable(f"cannot use the state directory {state}", error) from error

    def acquire(self, intent: Intent) -> Lease:
        """Make an intent durable and return its lease; only then may the first side effect happen.

        Raises:
            LedgerUnavailable: nothing was written, so nothing may be started.
            ConfigError: the runtime's settings are not JSON.
        """
        try:
            line = _line({"v": VERSION, "intent": intent.to_json()})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the settings of {intent.runtime} are not JSON: {error}") from error
        path = self.directory / f"{intent.identity}.jsonl"
        temporary = self.directory / f".tmp-{intent.identity}"
        try:
            descriptor = _create_locked(temporary)
            try:
                _require_absent(path)
                durable.write_all(descriptor, line)
                failpoints.hit(_POST_INTENT)
                durable.sync_data(descriptor)
                failpoints.hit(_POST_SYNC)
                durable.preallocate(descriptor, RESERVED)
                failpoints.hit(_POST_PREALLOCATE)
            except BaseException:
                _discard(temporary, descriptor)
                raise
            try:
                temporary.rename(path)
                failpoints.hit(_POST_RENAME)
                durable.sync_directory(self.directory)
                failpoints.hit(_POST_DIRSYNC)
            except BaseException:
                _discard(temporary)
                _discard(path, descriptor)
                raise
        except OSError as error:
            raise _unavailable(f"cannot make the intent of {intent.name} durable", error) from error
        return Lease(path, descriptor, _Content(intent, end=len(line)))

    def scan(self, *, sweep: bool = True) -> list[Entry]:
        """Show every entry, oldest first, without taking any lease.

        Args:
            sweep: also remove what crashes left behind that stands for no instance.

        Raises:
            LedgerUnavailable: the directory cannot be read.
        """
        entries: list[Entry] = []
        now = time.time()
        try:
            names = os.listdir(self.directory)  # noqa: PTH208 - 10,000 Path objects cost 30 ms
        except OSError as error:
            raise _unavailable(f"cannot read {self.directory}", error) from error
        for name in names:
            if name.endswith(".jsonl"):
                entry = self._look(name, now)
                if entry is not None:
                    entries.append(entry)
            elif sweep and (name.startswith(".tmp-") or name.endswith(".op")):
                self._sweep(name)
        return sorted(entries, key=lambda entry: -entry.age)

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
            descriptor = _lock_existing(path)
            if descriptor is None:
                return None
            try:
                failpoints.hit(_POST_CLAIM_LOCK)
                op = _lock_op(path)
                content = self._parse(identity, _read(descriptor))
                _require_intent(path, content)
                failpoints.hit(_POST_CLAIM)
                return Lease(path, descriptor, content, op)
            except BaseException:
                if op is not None:
                    lifeline.close(op)
                lifeline.close(descriptor)
                raise
        except OSError as error:
            raise _unavailable(f"cannot claim {path}", error) from error

    def _look(self, name: str, now: float) -> Entry | None:
        path = f"{self.directory}/{name}"
        identity = name[: -len(".jsonl")]
        alive, content = False, _Content()
        try:
            with lifeline.forbid_fork():
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    alive = _alive(descriptor)
                    if os.fstat(descriptor).st_nlink == 0:
                        return None
                    data = _read(descriptor)
                finally:
                    os.close(descriptor)
            content = self._parse(identity, data)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                raise _unavailable(f"cannot read {self.directory}", error) from error
            content.error = f"it cannot be opened or read: {error.strerror}"
        started = content.intent.started if content.intent else _modified(path, now)
        return Entry(
            directory=self.directory,
            identity=identity,
            name=instance_name(self.install, identity) if _IDENTITY.fullmatch(identity) else None,
            alive=alive,
            intent=content.intent,
            error=content.error and f"{content.error}; {_remedy_unreadable(path)}",
            state=content.state,
            facts=content.facts,
            detail=content.detail,
            age=max(0.0, now - started),
        )

    def _parse(self, identity: str, data: bytes) -> _Content:
        content = _parse(data)
        intent = content.intent
        if intent is not None and intent.identity != identity:
            content.intent, content.error = None, "its intent belongs to another file"
        elif intent is not None and intent.install != self.install:
            content.intent, content.error = None, f"it belongs to the installation {intent.install}"
        return content

    def _sweep(self, name: str) -> None:
        """Remove a temporary file whose writer is dead, or an op-lock that outlived its entry."""
        path = self.directory / name
        # An entry exists before its op-lock is created, so no entry now means no entry any more.
        if name.endswith(".op") and path.with_suffix(".jsonl").exists():
            return
        with contextlib.suppress(OSError):
            descriptor = _lock_existing(path)
            if descriptor is not None:
                _discard(path, descriptor)


def default_state_directory() -> Path:
    """Where the state is kept unless somebody says otherwise: per user, on the local disk."""
    if chosen := os.environ.get("CLAW_STATE"):
        return Path(chosen)
    if base := os.environ.get("XDG_STATE_HOME"):
        return Path(base) / INSTANCE_PREFIX
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / INSTANCE_PREFIX
    return Path.home() / ".local" / "state" / INSTANCE_PREFIX


def _alive(descriptor: int) -> bool:
    """Whether someone holds the lease; a shared lock, so that looks do not disturb each other."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _parse(data: bytes) -> _Content:
    """Read what is there: torn or NUL-filled lines after the intent are skipped, they are hints."""
    end = data.rfind(b"\n") + 1
    content = _Content(end=end)
    if data[end : end + 1] not in {b"", b"\0"}:  # a last line without its end
        content.end, content.torn = len(data.rstrip(b"\0")), True
    lines = data[:end].decode(errors="replace").split("\n")
    try:
        content.intent = _head(lines[0])
    except (ValueError, KeyError, TypeError) as error:
        content.error = f"its intent cannot be read ({type(error).__name__}: {error})"
    for line in lines[1:-1]:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            value = json.loads(line.strip("\0"))
            if "fact" in value:
                key, fact = value["fact"]
                content.facts[str(key)] = str(fact)
            else:
                content.state, content.detail = str(value["state"]), dict(value.get("detail", ()))
    return content


def _head(line: str) -> Intent:
    value = json.loads(line)
    if value["v"] != VERSION:
        raise ValueError(f"it has version {value['v']!r}, this claw reads {VERSION}")
    return Intent.from_json(value["intent"])


def _read(descriptor: int) -> bytes:
    data = os.pread(descriptor, RESERVED, 0)
    while len(data) % RESERVED == 0 and data[-1:] not in {b"", b"\0"}:
        more = os.pread(descriptor, RESERVED, len(data))
        if not more:
            break
        data += more
    return data


def _create_locked(path: Path) -> int:
    """Create a file that this process holds; a sweep in between only costs a repetition."""
    for _ in range(100):
        failpoints.hit(_PRE_OPEN)
        descriptor = lifeline.open_kept(
            lambda: os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        )
        try:
            failpoints.hit(_POST_OPEN)
            # Only a sweep can hold it, and it removes the file before it lets go.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                failpoints.hit(_POST_FLOCK)
                return descriptor
        except BaseException:
            _discard(path, descriptor)
            raise
        lifeline.close(descriptor)
    raise OSError(errno.EBUSY, "other processes keep removing the temporary file", str(path))


def _lock_existing(path: Path) -> int | None:
    """Lock a file if it is still there and nobody holds it."""
    try:
        descriptor = lifeline.open_kept(lambda: os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine, there = os.fstat(descriptor), os.stat(path)
        if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino) and mine.st_nlink:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass  # held by someone, or finished by someone between opening and locking
    except BaseException:
        lifeline.close(descriptor)
        raise
    lifeline.close(descriptor)
    return None


def _lock_op(path: Path) -> int | None:
    """Lock the op-lock of an entry whose lease is held; None when there is none.

    Raises:
        InFlight: some process still has it.
    """
    try:
        op = lifeline.open_kept(lambda: os.open(path.with_suffix(".op"), os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(op, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lifeline.close(op)
        raise InFlight("a process of the dead owner is still at work on it") from None
    except BaseException:
        lifeline.close(op)
        raise
    return op


def _require_absent(path: Path) -> None:
    if path.exists():
        raise FileExistsError(errno.EEXIST, "the identity is in use", str(path))


def _require_intent(path: Path, content: _Content) -> None:
    if content.intent is None:
        raise LedgerUnavailable(f"{path}: {content.error}", remedy=_remedy_unreadable(path))


def _discard(path: Path, descriptor: int | None = None) -> None:
    """Remove a file that stands for nothing, if possible, and only then let go of its lock."""
    with contextlib.suppress(OSError):
        path.unlink()
    if descriptor is not None:
        lifeline.close(descriptor)


def _install(path: Path) -> str:
    """Read the install id, made durably and once, however many processes come first."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        try:
            durable.write_file(temporary, secrets.token_hex(4).encode() + b"\n")
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)  # unlike a rename it never replaces the other one's
        finally:
            temporary.unlink(missing_ok=True)
        durable.sync_directory(path.parent)
    text = path.read_text().strip()
    if not _INSTALL.fullmatch(text):
        raise LedgerUnavailable(
            f"the install id in {path} is damaged",
            remedy=f"write the 8 hex digits in the names of your instances into {path}; "
            "if there are no instances, remove the file",
        )
    return text


def _check_owner(path: Path) -> None:
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise LedgerUnavailable(
            f"{path} belongs to the user {status.st_uid}, not to you ({os.geteuid()})",
            remedy="set CLAW_STATE to a directory of your own",
        )
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise LedgerUnavailable(f"others can change {path}", remedy=f"chmod 700 {path}")


def _modified(path: str, default: float) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return default


def _remedy_unreadable(path: Path | str) -> str:
    return f"see that the instance is gone, then remove {path}"


def _unavailable(what: str, error: OSError) -> LedgerUnavailable:
    reason = error.strerror or str(error)
    return LedgerUnavailable(
        f"{what}: {reason}",
        remedy=_REMEDIES.get(error.errno or 0, "set CLAW_STATE to another local directory"),
    )
