"""Tar streams of files of the host, and the place where one from an instance comes to lie.

A tree is read through directory descriptors that never follow a link, by threads that live no
longer than one step, so there is nothing to join. `unpack` is the other direction.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tarfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Final

from claw_core.errors import ArchiveError, ConfigError
from claw_core.tasks import in_thread

BLOCK: Final = 512
CHUNK: Final = 1 << 18
"""Bytes that are handled per step; memory is bounded by a few of them."""
ENCODING: Final = sys.getfilesystemencoding()
"""Of names in an archive; what it cannot say travels as surrogates."""
DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a directory is opened that must not be a link."""
# NONBLOCK: a fifo that takes the place of a file between stat and open must not hang us.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def ignore(text: str) -> None:
    """Drop a notice."""


def pack(
    source: Path, name: str | None = None, notice: Callable[[str], None] = ignore
) -> AsyncIterator[bytes]:
    """Stream a file or directory as a tar archive with one top-level member.

    Links are stored as links and never followed; owners, set-id and sticky bits are dropped. A file
    that changes while it is read still gives a valid archive.

    Args:
        source: what to pack.
        name: name of the top-level member; by default that of `source`.
        notice: told about everything that is left out or changed meanwhile.

    Raises:
        ConfigError: `source` does not exist, or is neither a file nor a directory.
        ArchiveError: while streaming, something in it cannot be read.
    """
    try:
        mode = source.lstat().st_mode
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read {source}: {getattr(error, 'strerror', None) or error}",
            remedy="check the path",
        ) from error
    if stat.S_ISLNK(mode):
        # Following it would let whoever may write its directory choose what is read.
        raise ConfigError(
            f"{source} is a symbolic link", remedy=f"name its target, {source.resolve()}"
        )
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ConfigError(
            f"{source} is neither a file nor a directory", remedy="name a file or a directory"
        )
    return _packed(source, _checked_name(name or source.name or source.resolve().name), notice)


async def _packed(source: Path, name: str, notice: Callable[[str], None]) -> AsyncIterator[bytes]:
    notices: list[str] = []
    pieces = _chunked(_pieces(source, name, notices.append))
    try:
        while (chunk := await in_thread(next, pieces, b"")) or notices:
            for text in notices:
                notice(text)
            notices.clear()
            if chunk:
                yield chunk
    finally:
        pieces.close()


def _chunked(pieces: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    buffer = bytearray()
    with contextlib.closing(pieces):
        for piece in pieces:
            buffer += piece
            if len(buffer) >= CHUNK:
                yield bytes(buffer)
                buffer.clear()
    yield bytes(buffer)


def _pieces(source: Path, name: str, notice: Callable[[str], None]) -> Generator[bytes, None, None]:
    """Walk the tree with one descriptor per level, and give headers and contents."""
    path = source.absolute()  # not resolved: the last step must not follow a link
    where = shown(str(path))
    levels: list[tuple[int, str, Iterator[str]]] = []
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        levels.append((parent, "", iter([path.name or "."])))
        while levels:
            folder, prefix, entries = levels[-1]
            entry = next(entries, None)
            if entry is None:
                os.close(levels.pop()[0])
                continue
            member = f"{prefix}/{entry}" if prefix else name
            where = shown(str(path) + member[len(name) :])
            try:
                found = os.stat(entry, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    child = os.open(entry, DIRECTORY, dir_fd=folder)
                    levels.append((child, member, iter(())))
                    levels[-1] = (child, member, iter(sorted(os.listdir(child))))  # noqa: PTH208 - a descriptor
                    yield _header(member, os.fstat(child), tarfile.DIRTYPE)
                elif stat.S_ISLNK(found.st_mode):
                    yield _header(member, found, tarfile.SYMTYPE, os.readlink(entry, dir_fd=folder))
                elif stat.S_ISREG(found.st_mode):
                    yield from _content(os.open(entry, _READ, dir_fd=folder), member, where, notice)
                else:
                    notice(f"{where} is a socket, a device or a fifo and was left out")
            except FileNotFoundError:
                if not prefix:
                    raise
                notice(f"{where} vanished while its directory was packed")
    except OSError as error:
        raise ArchiveError(
            f"cannot read {where}: {error.strerror}", remedy="make it readable, or leave it out"
        ) from error
    finally:
        for folder, _, _ in levels:
            os.close(folder)
    yield bytes(2 * BLOCK)


def _content(
    descriptor: int, member: str, where: str, notice: Callable[[str], None]
) -> Generator[bytes, None, None]:
    """Give a regular file, exactly as long as its header says; closes the descriptor."""
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            notice(f"{where} was replaced while it was packed and was left out")
            return
        yield _header(member, found, tarfile.REGTYPE)
        left = found.st_size
        while left and (data := os.read(descriptor, min(left, CHUNK))):
            left -= len(data)
            yield data
        if left:
            notice(f"{where} shrank while it was packed; its end is zeros")
        while left:
            data = bytes(min(left, CHUNK))
            left -= len(data)
            yield data
        yield bytes(-found.st_size % BLOCK)
    finally:
        os.close(descriptor)


def _header(member: str, found: os.stat_result, kind: bytes, target: str = "") -> bytes:
    info = tarfile.TarInfo(member)
    info.type = kind
    info.linkname = target
    info.mode = found.st_mode & 0o777
    info.mtime = int(found.st_mtime)
    info.size = found.st_size if kind == tarfile.REGTYPE else 0
    # The tar of busybox, which is all that many images have, knows GNU's long names but not PAX.
    return info.tobuf(tarfile.GNU_FORMAT, ENCODING, "surrogateescape")


def destination(path: Path, name: str) -> Path:
    """Return where a member `name` comes to lie: in `path` if that is a directory, else at `path`.

    Raises:
        ConfigError: it cannot be put there; nothing has been touched.
    """
    _checked_name(name)
    try:
        final = path / name if path.is_dir() else path
        parent = final.absolute().parent
        if final.is_dir():
            raise ConfigError(
                f"{final} exists and is a directory",
                remedy="remove it, or name another destination",
            )
        if final.exists() and not final.is_file():
            raise ConfigError(f"{final} is no regular file", remedy="name another destination")
        if not parent.is_dir():
            raise ConfigError(
                f"there is no directory {parent}", remedy=f"create it: mkdir -p {parent}"
            )
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write to {path}: {error}", remedy="name another one") from error
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{parent} is not writable", remedy="name another destination")
    return final


def shown(text: str) -> str:
    """Return a name as it can be printed on one line of any terminal."""
    return text if text.isprintable() else ascii(text)[1:-1]


def _checked_name(name: str) -> str:
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise ConfigError(
            f"{shown(name)!r} cannot be the name of a file", remedy="name a file or a directory"
        )
    return name
