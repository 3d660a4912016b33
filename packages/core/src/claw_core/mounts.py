"""Which host paths an instance may see."""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Iterable, Iterator
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
        protected: paths that no writable mount may contain, see `protect`.
    """

    roots: tuple[Root, ...] = ()
    blocked: tuple[str, ...] = BLOCKED
    protected: tuple[str, ...] = ()

    def resolve(self, mount: Mount) -> Mount:
        """Return the mount with the real path of its source.

        Whoever mounts it must not follow symlinks any more: one that comes into its path later is a
        swap, and is refused by then.

        Raises:
            NotGranted: why it is not granted.
        """
        parts = mount.target.split("/")
        if not mount.target.startswith("/") or ".." in parts or "\0" in mount.target:
            raise NotGranted(
                f"cannot mount at {mount.target!r}",
                "the target is an absolute path inside the instance, without `..`",
            )
        asked = str(mount.source)
        try:
            source = os.path.realpath(asked, strict=True)
            kind = os.stat(source).st_mode
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it cannot be a path"
            raise NotGranted(
                f"cannot mount {asked!r}: {reason}", "create it, or correct the path"
            ) from None
        if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
            raise NotGranted(
                f"cannot mount {source!r}: it is neither a directory nor a file",
                "mount the directory that holds it, or leave it out",
            )
        self._refuse_blocked(asked, source)
        if not mount.authorised:
            self._refuse_outside(source, writable=mount.writable)
        if mount.writable:
            _refuse_protected(source, self.protected)
        return mount if source == asked else attrs.evolve(mount, source=Path(source))

    def _refuse_blocked(self, asked: str, source: str) -> None:
        for path in {_absolute(asked), source}:
            if name := _matcher(self.blocked).search(f"{path}/".casefold()):
                raise NotGranted(
                    f"{path!r} is never mounted: {name[0].strip('/')!r} is blocked",
                    "mount a directory without it, or upload the single files that are needed",
                )
        own = home()
        if own is None or not (_below(own, source) or _below(source, own)):
            return
        for pattern in self.blocked:
            inside = f"{own}/{pattern}"
            if _below(inside, source) and os.path.lexists(inside):
                raise NotGranted(
                    f"{source!r} is never mounted: it contains {inside!r}",
                    "mount a directory below it",
                )

    def _refuse_outside(self, source: str, *, writable: bool) -> None:
        allowed = [root for root in self.roots if _below(source, os.path.realpath(root.path))]
        if not allowed:
            roots = ", ".join(str(root.path) for root in self.roots) or "none"
            raise NotGranted(
                f"{source!r} is outside of the allowed roots ({roots})",
                "add a root to [mount_policy] allowed_roots in claw.toml",
            )
        if writable and not any(root.writable for root in allowed):
            raise NotGranted(
                f"{source!r} may only be mounted read-only",
                "ask for a read-only mount, or make its root writable in claw.toml",
            )


class NotGranted(Exception):
    """A mount is not granted; both texts are for the user."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def protect(*paths: Path) -> tuple[str, ...]:
    """What to protect of files that may be symlinks: where they lead, and every link on the way."""
    return tuple(dict.fromkeys(place for path in paths for place in _way(str(path.absolute()))))


def _way(path: str) -> Iterator[str]:
    """Every symlink that is followed to get to a path, and what is found in the end."""
    here, rest = "/", path.split("/")
    for _ in range(1000):  # a loop of links leads nowhere, and the kernel gives up as well
        if not rest:
            break
        part, *rest = rest
        place = os.path.normpath(f"{here}/{part}")
        if Path(place).is_symlink():
            yield place
            try:
                target = str(Path(place).readlink())
            except OSError:
                return  # it went away meanwhile, and with it what it led to
            here = "/" if target.startswith("/") else here
            rest = [*target.split("/"), *rest]
        else:
            here = place
    yield here


@functools.lru_cache
def _matcher(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Finds a blocked name in a path that ends with a slash."""
    translated = [
        re.escape(pattern.strip("/").casefold()).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        for pattern in patterns
    ]
    return re.compile(f"/(?:{'|'.join(translated)})(?=/)")


@functools.lru_cache
def home() -> str | None:
    """The home directory, if there is one."""
    try:
        return os.path.realpath(Path.home())
    except RuntimeError:
        return None


def _absolute(path: str) -> str:
    """A path as it was written, its symlinks not followed."""
    return os.path.normpath(path if path.startswith("/") else Path(path).absolute())


def _below(path: str, directory: str) -> bool:
    """Whether a path is in a directory, or is that directory itself."""
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def _refuse_protected(source: str, protected: Iterable[str]) -> None:
    for place in protected:
        if _below(place, source) or _below(source, place):
            how = "contains" if _below(place, source) else "is part of"
            raise NotGranted(
                f"a writable mount of {source!r} {how} {place!r}",
                "mount it read-only, or mount another directory",
            )
