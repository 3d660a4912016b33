"""Making bytes and names survive a power loss, per platform."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from claw_core import vfs
from claw_core.errors import LedgerUnavailable

SHARED: Final = frozenset(
    [
        *("9p", "acfs", "afpfs", "afs", "beegfs", "ceph", "cifs", "coda", "glusterfs", "gpfs"),
        *("lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "prl_fs", "smb", "smb2", "smb3", "smbfs"),
        *("vboxsf", "virtiofs", "vmhgfs", "webdav"),
    ]
)
"""File system types on which a flock can be shared with, or lost to, another machine."""


def sync_data(descriptor: int) -> None:
    """Return when the file's bytes, and the size needed to read them, are on the medium.

    Raises:
        OSError: they may not be.
    """
    if sys.platform == "darwin":
        # fsync on macOS stops at the drive's cache; volumes without F_FULLFSYNC get what there is.
        try:
            vfs.file_control(descriptor, fcntl.F_FULLFSYNC)
        except OSError:
            vfs.fsync(descriptor)
    else:
        vfs.fdatasync(descriptor)


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Return when names created, renamed or removed in a directory are on the medium.

    Raises:
        OSError: they may not be.
    """
    descriptor = vfs.open_file(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        vfs.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot, and writes names through
            raise
    finally:
        vfs.close(descriptor)


def preallocate(descriptor: int, size: int) -> None:
    """Reserve `size` bytes, so that writing inside them cannot fail for want of space.

    The file grows to `size` and reads as NUL there. Does nothing where the platform or the file
    system cannot reserve (macOS, some copy-on-write volumes): later writes may fail then.

    Raises:
        OSError: there is no space or quota left.
    """
    if sys.platform == "darwin":
        return
    try:
        vfs.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
            raise


def write_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file as a whole: after a crash it has either its old or its new content.

    Raises:
        OSError: the old content, or absence, is still in place.
    """
    temporary = path.with_name(f".{path.name}-{vfs.token_hex(8)}")
    descriptor = vfs.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            write_all(descriptor, data)
            sync_data(descriptor)
        finally:
            vfs.close(descriptor)
        vfs.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            vfs.unlink(temporary)
        raise
    sync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a name, unless it is gone already; `sync_directory` makes that durable.

    Raises:
        OSError: it is still there.
    """
    with contextlib.suppress(FileNotFoundError):
        vfs.unlink(path)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte at the current position.

    Raises:
        OSError: some of them were not written.
    """
    view = memoryview(data)
    while view:
        view = view[vfs.write(descriptor, view) :]


def refuse_shared_filesystem(path: Path) -> None:
    """Return if a flock taken below `path` binds every process that can see it.

    Raises:
        LedgerUnavailable: the path lies on a network, FUSE or host-shared file system.
    """
    real = os.path.realpath(path)
    if sys.platform == "darwin":
        listing = subprocess.run(["/sbin/mount"], check=True, capture_output=True, text=True)
        kind = shared_on_macos(listing.stdout, real)
    else:
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        kind = shared_on_linux(mounts, real)
    if kind is not None:
        raise LedgerUnavailable(
            f"{real} is on a shared file system ({kind}), where no lock proves an owner alive",
            remedy="set CLAW_STATE to a directory on a local disk",
        )


def shared_on_linux(mountinfo: str, path: str) -> str | None:
    """Name the type of the shared file system that holds `path`, or None if it is a local one."""
    found, kind = -1, ""
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if not dash or len(fields) < 6:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        # Of two mounts on one point the later covers the earlier.
        if _contains(point, path) and len(point) >= found:
            found, kind = len(point), after.split(" ")[0]
    return kind if kind in SHARED or kind.startswith("fuse") else None


def shared_on_macos(mounts: str, path: str) -> str | None:
    """The same from the output of `/sbin/mount`, where local volumes carry the word `local`."""
    found, kind, local = -1, "", True
    for line in mounts.splitlines():
        before, _, after = line.rpartition(" (")
        point = before.partition(" on ")[2]
        words = after.rstrip(")").split(", ")
        if point and _contains(point, path) and len(point) >= found:
            found, kind, local = len(point), words[0], "local" in words
    refused = not local or kind in SHARED or "fuse" in kind
    return kind if refused else None


def _contains(point: str, path: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")
