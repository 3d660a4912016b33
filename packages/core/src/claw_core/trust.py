"""Trust on first use: an agent can write its own group's `config.json`, and gains nothing by it.

What a group's file asked for when it was first used is remembered in the state directory, which no
agent can reach. Later it may ask for less, but for nothing more until the owner accepts it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from claw_core import durable
from claw_core.config import files
from claw_core.config.config import Group
from claw_core.config.settings import Settings
from claw_core.errors import ConfigError, Untrusted
from claw_core.isolation import Isolation
from claw_core.known import KNOWN, canonical
from claw_core.statedir import unavailable

VERSION: Final = 1
MALFORMED: Final = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading JSON of another shape ends in."""


@attrs.frozen
class Asked:
    """What a group's file asks for, as far as it matters for trust.

    Attributes:
        runtime: the runtime that it names.
        image: the image that it names.
        env: variable -> digest of its value, which may be a secret.
        mounts: target -> the real path of its source, so that an agent which changes a symlink on
            the way asks for another mount; and whether it is writable.
    """

    runtime: str | None = None
    image: str | None = None
    env: Mapping[str, str] = attrs.field(factory=dict)
    mounts: Mapping[str, tuple[str, bool]] = attrs.field(factory=dict)

    @classmethod
    def of(cls, settings: Settings, salt: str, granted: Mapping[str, str] = {}) -> Asked:
        """Take from settings what matters.

        Args:
            settings: what the file sets.
            salt: makes digests of equal values differ between installs.
            granted: target -> real source, of mounts that were resolved already.
        """
        return cls(
            settings.runtime and canonical(settings.runtime),
            settings.image,
            {name: _digest(salt, name, value) for name, value in settings.env.items()},
            {
                mount.target: (
                    granted.get(mount.target) or _real(mount.source),
                    mount.writable,
                )
                for mount in settings.mounts
            },
        )

    @classmethod
    def from_json(cls, value: Any) -> Asked:
        """Read what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        if value["v"] != VERSION:
            raise ValueError(f"it has version {value['v']!r}, this claw reads {VERSION}")
        mounts = {target: (source, bool(rw)) for target, (source, rw) in value["mounts"].items()}
        return cls(value["runtime"], value["image"], dict(value["env"]), mounts)

    def to_json(self) -> dict[str, Any]:
        """What is kept of it."""
        return {"v": VERSION, **attrs.asdict(self)}


@attrs.frozen
class TrustStore:
    """What the owner has accepted for the groups of one root.

    Attributes:
        state: the state directory.
        install: its install id.
        root: the directory that holds the groups.
    """

    state: Path
    install: str
    root: Path

    def check(self, group: Group, granted: Mapping[str, str] = {}) -> None:
        """Return when the group's file asks for nothing beyond what was accepted.

        Args:
            group: the group.
            granted: target -> real source, of mounts that will be mounted as they are now.

        Raises:
            Untrusted: what it asks for beyond that.
        """
        known = self._load(group.name)
        asked = self._asked(group, granted)
        if known is not None and (changes := list(differences(known, asked))):
            raise Untrusted(
                f"groups/{group.name}/config.json asks for more than was accepted\n    "
                + "\n    ".join(changes),
                cleaned="nothing was started",
                remedy=f"undo the change, or accept it with `claw trust {group.name}`",
            )

    def remember(self, group: Group, granted: Mapping[str, str] = {}) -> None:
        """Take what the group's file asks for as accepted, if this is its first use.

        Args:
            group: the group.
            granted: as for `check`.

        Raises:
            Untrusted: another process was first, and accepted less.
            LedgerUnavailable: it cannot be remembered.
        """
        # Most uses are no first ones, and need no durable write to find that out.
        known = self.path(group.name).exists()
        if known or not self._save(group.name, self._asked(group, granted), replace=False):
            self.check(group, granted)

    def pending(self, group: Group) -> list[str] | None:
        """What the group's file asks for beyond what was accepted; None when it was never used."""
        known = self._load(group.name)
        return None if known is None else list(differences(known, self._asked(group)))

    def changes(self, group: Group) -> list[str]:
        """The same; before its first use all that it asks for."""
        known = self._load(group.name) or Asked()
        return list(differences(known, self._asked(group)))

    def accept(self, group: Group) -> None:
        """Remember exactly what this group's file asked for when it was read.

        Raises:
            LedgerUnavailable: it cannot be remembered.
        """
        self._save(group.name, self._asked(group), replace=True)

    def path(self, name: str) -> Path:
        """Where a group's file is remembered."""
        root = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return self.state / "trust" / f"{root}-{name}.json"

    def _asked(self, group: Group, granted: Mapping[str, str] = {}) -> Asked:
        return Asked.of(group.file.settings if group.file else Settings(), self.install, granted)

    def _load(self, name: str) -> Asked | None:
        path = self.path(name)
        try:
            text = files.read(path, trusted=True)
            return None if text is None else Asked.from_json(json.loads(text))
        except (
            files.Unreadable,
            AttributeError,
            LookupError,
            RecursionError,
            ValueError,
            TypeError,
        ) as error:
            raise ConfigError(
                f"{path} is damaged: {error}",
                remedy=f"look at the group's config.json, and `claw trust {name}` once the damaged "
                "file is removed",
            ) from error

    def _save(self, name: str, asked: Asked, *, replace: bool) -> bool:
        """Write durably; without `replace`, tell whether nobody else had."""
        path = self.path(name)
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        value = {"root": str(self.root), "group": name, **asked.to_json()}
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(mode=0o700, exist_ok=True)
                durable.sync_directory(self.state)
            try:
                durable.write_file(temporary, json.dumps(value, indent=1).encode() + b"\n")
                if replace:
                    temporary.rename(path)
                else:
                    os.link(temporary, path)  # unlike a rename it never replaces the other one's
            finally:
                with contextlib.suppress(FileNotFoundError):
                    temporary.unlink()
            durable.sync_directory(path.parent)
        except FileExistsError:
            return False
        except OSError as error:
            raise unavailable(f"cannot write {path}", error) from error
        return True


def differences(known: Asked, asked: Asked) -> Iterator[str]:
    """Say what is asked for beyond what is known, one line for each thing."""
    if asked.runtime != known.runtime and _floor(asked.runtime) < _ceiling(known.runtime):
        yield f"runtime: {known.runtime or 'not set'} -> {asked.runtime or 'not set'}"
    if asked.image != known.image:
        yield f"image: {known.image or 'not set'} -> {asked.image or 'not set'}"
    for name in sorted({*known.env, *asked.env}):
        before, after = known.env.get(name), asked.env.get(name)
        if before != after:
            how = "added" if before is None else "removed" if after is None else "changed"
            yield f"variable {name}: {how}"
    for target, (source, writable) in sorted(asked.mounts.items()):
        if target not in known.mounts or known.mounts[target][0] != source:
            yield f"mount {source} at {target}: added{', writable' * writable}"
        elif writable and not known.mounts[target][1]:
            yield f"mount {source} at {target}: read-only -> writable"


def _floor(runtime: str | None) -> Isolation:
    """The isolation that a runtime is sure to give; none where nobody can know."""
    return KNOWN[runtime].least if runtime and runtime in KNOWN else Isolation.NONE


def _ceiling(runtime: str | None) -> Isolation:
    """The isolation that a runtime may have given; the strongest where nobody can know."""
    return KNOWN[runtime].best if runtime and runtime in KNOWN else Isolation.VM


def _real(path: Path) -> str:
    """Where a path leads; its own text where that changes under our hands."""
    try:
        return os.path.realpath(path)
    except OSError:  # a symlink that went away while it was followed
        return str(path)


def _digest(salt: str, name: str, value: str) -> str:
    return hashlib.sha256(f"{salt}\0{name}\0{value}".encode()).hexdigest()
