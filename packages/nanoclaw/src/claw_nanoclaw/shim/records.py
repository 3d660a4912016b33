"""The containers that NanoClaw believes to have: a name, and the claw process behind it.

A record is a file that its process holds locked for as long as it lives. So no record lies: the
kernel releases the lock of a process that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from claw_core import lifeline
from claw_core.entry import Entry
from claw_core.errors import ClawError, ConfigError
from claw_core.ledger import Ledger
from claw_core.statedir import default_state_directory

FOLDER = "nanoclaw"
"""Below the state directory."""


@attrs.frozen
class Record:
    """One of NanoClaw's containers.

    Attributes:
        name: as NanoClaw has given it.
        root: the installation that it belongs to.
        group: whose it is.
        image: what NanoClaw asked for.
        labels: the same.
        process: pid of the client that NanoClaw has started.
        started: seconds since 1970.
    """

    name: str
    root: str
    group: str
    image: str
    labels: Mapping[str, str] = attrs.field(factory=dict)
    process: int = attrs.field(factory=os.getpid)
    started: float = attrs.field(factory=time.time)

    @property
    def identity(self) -> str:
        """What stands for its id in answers."""
        return hashlib.sha256(f"{self.name} {self.started}".encode()).hexdigest()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what a file has.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        return cls(**json.loads(text))


@attrs.frozen
class Records:
    """All records of this user."""

    folder: Path = attrs.field(factory=lambda: default_state_directory() / FOLDER)

    @contextlib.contextmanager
    def held(self, record: Record) -> Iterator[int]:
        """Take a name for the length of the block; the record is gone afterwards.

        Yields:
            The descriptor that holds the lock.

        Raises:
            ConfigError: another living process has this name.
            ClawError: it cannot be written.
        """
        path = self._path(record.name)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = self._take(path, record)
        except FileExistsError:
            raise ConfigError(
                f"the container name {record.name} is in use",
                cleaned="nothing was started",
                remedy="see `claw nanoclaw status`",
            ) from None
        except OSError as error:
            raise ClawError(
                f"cannot write to {self.folder}: {error.strerror}", cleaned="nothing was started"
            ) from error
        try:
            yield descriptor
        finally:
            path.unlink(missing_ok=True)
            lifeline.close(descriptor)

    def _take(self, path: Path, record: Record) -> int:
        """Put a file that is locked already in its place, so that nobody sees one that is not."""
        temporary = path.with_suffix(f".{os.getpid()}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = lifeline.open_kept(lambda: os.open(temporary, flags, 0o600))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, json.dumps(attrs.asdict(record)).encode())
            known = self.find(record.name)
            if known is not None and not self.alive(known):
                path.unlink(missing_ok=True)
            os.link(temporary, path)
        except BaseException:
            lifeline.close(descriptor)
            raise
        finally:
            temporary.unlink(missing_ok=True)
        return descriptor

    def find(self, name: str) -> Record | None:
        """The record of a name, whether its process lives or not."""
        return _read(self._path(name))

    def all(self) -> list[Record]:
        """Every record, in the order of their start."""
        found = map(_read, self.folder.glob("*.json"))
        return sorted((one for one in found if one is not None), key=lambda one: one.started)

    def alive(self, record: Record) -> bool:
        """Whether its process lives: it holds the lock."""
        return not released(self.path(record), block=False)

    def forget(self, record: Record) -> None:
        """Remove the record of a process that was killed."""
        if self.find(record.name) == record and not self.alive(record):
            self._path(record.name).unlink(missing_ok=True)

    def path(self, record: Record) -> Path:
        """The file that the process of a record holds locked."""
        return self._path(record.name)

    def _path(self, name: str) -> Path:
        # A name may be longer than a file's may.
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"


def released(path: Path, *, block: bool = True) -> bool:
    """Whether nobody holds the lock of a file; with `block`, as soon as that is so.

    Blocks without end: call it in a thread of its own.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | (0 if block else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def instances(record: Record, ledger: Ledger) -> list[Entry]:
    """What the ledger has of the process of a record; usually one instance.

    While the process lives, its number is its own. Later that could be given to another process for
    the same group, whose instance is then waited for, and never touched: it has a living owner.
    """
    return [
        entry
        for entry in ledger.scan()
        if entry.intent is not None
        and entry.intent.owner == record.process
        and entry.intent.group == record.group
        and entry.intent.started >= record.started
    ]


def _read(path: Path) -> Record | None:
    try:
        return Record.parse(path.read_text())
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ClawError(
            f"{path} cannot be read ({error})", remedy="see `claw ps`, then remove that file"
        ) from error


def details(record: Record, *, running: bool) -> dict[str, Any]:
    """What `docker inspect` says of it, as far as NanoClaw asks."""
    status = "running" if running else "removing"
    return {
        "Id": record.identity,
        "Name": f"/{record.name}",
        "Created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.started)),
        "State": {"Status": status, "Running": running, "ExitCode": 0, "Pid": record.process},
        "Config": {"Image": record.image, "Labels": dict(record.labels)},
    }
