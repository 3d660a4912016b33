"""Packing and unpacking inside an instance, confined as any command."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tarfile

CHUNK = 1 << 18


def unpack(target: str) -> None:
    """Unpack a tar stream from standard input below a directory, which is made where missing.

    Members replace what they meet and never go through a link, so all stays below the target.

    Raises:
        OSError: a member cannot be written, or would be outside.
    """
    import tarfile  # late: only who moves files pays for it, and the interpreter is seen inside

    os.makedirs(target, exist_ok=True)
    # Pythons with filters would warn without one, and strip links that `_contained` has accepted.
    chosen: dict[str, Any] = (
        {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
    )
    with (
        open(0, "rb", closefd=False) as stream,
        tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as archive,
    ):
        members = _contained(archive, os.path.realpath(target))
        archive.extractall(target, members, **chosen)  # noqa: S202 - see `_contained`
        while stream.read(CHUNK):
            pass  # padding behind the end


def pack(source: str) -> None:
    """Write a path as a tar stream to standard output, under its last component.

    Raises:
        OSError: something of it cannot be read.
    """
    import tarfile

    os.lstat(source)
    name = os.path.basename(os.path.abspath(source))
    if not name:
        raise OSError(f"{source!r} has no name that it could be packed under")
    with (
        open(1, "wb", closefd=False) as stream,
        tarfile.open(fileobj=stream, mode="w|", bufsize=CHUNK) as archive,
    ):
        archive.add(source, arcname=name)


def _contained(archive: Iterable[tarfile.TarInfo], top: str) -> Iterator[tarfile.TarInfo]:
    """Yield members that may be extracted; each is extracted before the next is looked at."""
    trusted: set[str] = set()
    for member in archive:
        parent, _, name = member.name.rstrip("/").rpartition("/")
        if parent not in trusted:
            _check(parent, top, member.name)
            trusted.add(parent)
        if member.islnk():
            _check(member.linkname, top, member.name)
        if member.isdev() or name == "..":
            raise _outside(member.name)
        if _clear(os.path.join(top, parent, name), directory=member.isdir()) or member.issym():
            trusted.clear()  # a link may have come into the path, or been taken out of it
        member.mode &= 0o777  # a set-user-id bit could not be set anyway
        member.uid, member.gid, member.uname, member.gname = os.geteuid(), os.getegid(), "", ""
        yield member


def _check(name: str, top: str, member: str) -> None:
    """Refuse a name that leads out of the target, by itself or through a link."""
    if name.startswith("/") or ".." in name.split("/"):
        raise _outside(member)
    where = os.path.realpath(os.path.join(top, name))
    if where != top and not where.startswith(top.rstrip("/") + "/"):
        raise _outside(member)


def _clear(path: str, *, directory: bool) -> bool:
    """Take away what a member would be written through or could not replace; whether it was."""
    if not os.path.lexists(path):
        return False
    if os.path.isdir(path) and not os.path.islink(path):
        if directory:
            return False
        shutil.rmtree(path)
        return True
    os.unlink(path)
    return True


def _outside(member: str) -> OSError:
    return OSError(f"the archive's member {member!r} would be outside of the target")
