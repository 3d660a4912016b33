"""Which host paths an instance may see."""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

from claw_core.model import Mount

BLOCKED: Final = (
    ".ssh", ".gnupg", ".gpg", ".aws", ".azure", ".gcloud", ".kube", ".docker", ".env", ".env.*",
    ".netrc", ".npmrc", ".pypirc", ".git-credentials", "id_rsa*", "id_dsa*", "id_ecdsa*",
    "id_ed25519*", "credentials", "credentials.*", "private_key*", ".secret*", ".config/gcloud",
    ".config/gh", ".config/nanoclaw", ".config/claw", ".local/share/keyrings", ".password-store",
)  # fmt: skip
"""Never mounted, whoever asks: where people keep what opens other doors."""


@attrs.frozen
class Root:
    """A directory below which group files and programs may mount.

    Attributes:
        path: the directory.
        writable: whether a mount below it may be writable.
    """

    path: Path
    writable: bool = False


@attrs.frozen
class MountPolicy:
    """Decides about mounts; what it grants is a real path, without any symlink in it.

    Attributes:
        roots: below which mounts are allowed that the owner of the machine did not ask for.
        blocked: patterns of names, or of several names in a row, that no path may contain.
        protected: files that no writable mount may contain.
    """

    roots: tuple[Root, ...] = ()
    blocked: tuple[str, ...] = BLOCKED
    protected: tuple[Path, ...] = ()

    def resolve(self, mount: Mount, protected: Iterable[Path] = ()) -> Mount:
        """Return the mount with the real path of its source.

        Whoever mounts it must not follow symlinks any more: one that comes into its path later is a
        swap, and is refused by then.

        Args:
            mount: what is asked for.
            protected: further paths that no writable mount may contain.

        Raises:
            NotGranted: why it is not granted.
        """
        parts = mount.target.split("/")
        if not mount.target.startswith("/") or ".." in parts or "\0" in mount.target:
            raise NotGranted(
                f"cannot mount at {mount.target!r}",
                "the target is an absolute path inside the instance, without `..`",
            )
        try:
            source = mount.source.resolve(strict=True)
            kind = source.stat().st_mode
        except (OSError, RuntimeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it cannot be a path"
            raise NotGranted(
                f"cannot mount {str(mount.source)!r}: {reason}", "create it, or correct the path"
            ) from None
        if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
            raise NotGranted(
                f"cannot mount {str(source)!r}: it is neither a directory nor a file",
                "mount the directory that holds it, or leave it out",
            )
        self._refuse_blocked(mount.source, source)
        if not mount.authorised:
            self._refuse_outside(source, writable=mount.writable)
        if mount.writable:
            _refuse_protected(source, [*self.protected, *protected])
        return attrs.evolve(mount, source=source)

    def _refuse_blocked(self, asked: Path, source: Path) -> None:
        for path in {_literal(asked), source}:
            if name := _matcher(self.blocked).search(f"{path}/".casefold()):
                raise NotGranted(
                    f"{str(path)!r} is never mounted: {name[0].strip('/')!r} is blocked",
                    "mount a directory without it, or upload the single files that are needed",
                )
        for inside in _places(self.blocked):
            if inside.startswith(f"{source}/".replace("//", "/")) and os.path.lexists(inside):
                raise NotGranted(
                    f"{str(source)!r} is never mounted: it contains {inside!r}",
                    "mount a directory below it",
                )

    def _refuse_outside(self, source: Path, *, writable: bool) -> None:
        allowed = [root for root in self.roots if _below(source, root.path)]
        if not allowed:
            roots = ", ".join(str(root.path) for root in self.roots) or "none"
            raise NotGranted(
                f"{str(source)!r} is outside of the allowed roots ({roots})",
                "add a root to [mount_policy] allowed_roots in claw.toml",
            )
        if writable and not any(root.writable for root in allowed):
            raise NotGranted(
                f"{str(source)!r} may only be mounted read-only",
                "ask for a read-only mount, or make its root writable in claw.toml",
            )


class NotGranted(Exception):
    """A mount is not granted; both texts are for the user."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@functools.lru_cache
def _matcher(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Finds a blocked name in a path that ends with a slash."""
    translated = [
        re.escape(pattern.strip("/").casefold()).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        for pattern in patterns
    ]
    return re.compile(f"/(?:{'|'.join(translated)})(?=/)")


@functools.lru_cache
def _places(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Where the blocked names would be in the home directory."""
    try:
        home = Path.home().resolve()
    except RuntimeError:
        return ()  # no home, so nothing is in it
    return tuple(str(home / pattern) for pattern in patterns if not set(pattern) & set("*?"))


def _below(source: Path, root: Path) -> bool:
    try:
        real = root.resolve(strict=True)
    except (OSError, RuntimeError):
        return False  # a root that is not there allows nothing
    return source == real or real in source.parents


def _literal(path: Path) -> Path:
    """The absolute path as it was written, its symlinks not followed."""
    return Path(os.path.normpath(path.absolute()))


def _refuse_protected(source: Path, protected: Iterable[Path]) -> None:
    for path in protected:
        for place in {_literal(path), path.resolve()}:
            if place == source or source in place.parents:
                raise NotGranted(
                    f"a writable mount of {str(source)!r} contains {str(place)!r}",
                    "mount it read-only, or mount a directory below it",
                )
