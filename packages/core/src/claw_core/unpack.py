"""Tar streams from an instance, unpacked on the host, safe by construction.

The stream is parsed here and not by `tarfile`, which takes a damaged header in the middle for the
end, reads extended headers of any size into memory, and leaves containment to its caller. Files are
written by threads that live no longer than one step, so there is nothing to join.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NoReturn

import attrs

from claw_core.archive import BLOCK, CHUNK, DIRECTORY, ENCODING, shown
from claw_core.errors import ArchiveError
from claw_core.model import Sink
from claw_core.staging import Stage
from claw_core.tasks import in_thread

LIMIT: Final = 64 << 30
"""Bytes of file content that are accepted from an instance by default."""
MEMBERS: Final = 1_000_000
"""Members that are accepted from an instance by default."""
_META_LIMIT: Final = 1 << 20
_LINK_LIMIT: Final = 40
_DEPTH: Final = 100  # removing a tree takes two descriptors per level, and macOS allows 256
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS: Final[Mapping[bytes, str]] = {
    b"\0": "file",
    b"0": "file",
    b"1": "hard link",
    b"2": "symlink",
    b"5": "directory",
    b"7": "file",
}


@asynccontextmanager
async def unpacking(
    final: Path, name: str, *, limit: int = LIMIT, members: int = MEMBERS, as_is: bool = False
) -> AsyncIterator[Sink]:
    """Give a sink for a tar stream whose only top-level member `name` becomes `final`.

    Nothing exists at `final` before the block has ended without an error and the archive is whole;
    a file there is replaced atomically. On any problem nothing is left behind.

    Args:
        final: where it shall be, as `destination` says.
        name: the top-level member that is expected.
        limit: bytes of content that are accepted.
        members: members that are accepted.
        as_is: the instance may do with this tree what it likes, and does: links are kept wherever
            they lead, and sockets, fifos and devices left out, instead of being refused.

    Raises:
        ArchiveError: the archive is damaged, unsafe, too large or not the expected one; or it
            cannot be written.
    """
    unpacker = Unpacker(final, name, limit, members, as_is=as_is)
    try:
        await in_thread(unpacker.begin)
        pending = bytearray()

        async def sink(data: bytes) -> None:
            pending.extend(data)
            if len(pending) >= CHUNK:
                await flush()

        async def flush() -> None:
            data = bytes(pending)
            pending.clear()
            await in_thread(unpacker.feed, data)

        yield sink
        await flush()
        await in_thread(unpacker.finish)
    finally:
        await in_thread(unpacker.discard)


@attrs.define
class _Meta:
    """What extended headers say about the member that follows them."""

    name: str | None = None
    target: str | None = None
    size: int | None = None
    mtime: float | None = None


class Unpacker:
    """Extracts one archive into a private directory beside `final`, and moves it there at the end.

    Members are created below descriptors of real directories only, so a link inside the archive
    cannot lead out while it is unpacked; where the links lead is checked before anything is moved.
    """

    def __init__(
        self,
        final: Path,
        name: str,
        limit: int = LIMIT,
        members: int = MEMBERS,
        *,
        as_is: bool = False,
    ) -> None:
        self._final = final.absolute()
        self._as_is = as_is
        self._name = name
        self._left = limit
        self._members = members
        self._kinds: dict[tuple[str, ...], str] = {}
        self._links: dict[tuple[str, ...], str] = {}
        self._times: dict[tuple[str, ...], float] = {}
        self._member = name
        self._complete = False
        self._failure: ArchiveError | None = None
        self._buffer = bytearray()
        self._stage = Stage(self._final.parent)
        self._parser = self._parse()

    def begin(self) -> None:
        """Create the private directory; call `discard` afterwards, whatever happens.

        Raises:
            ArchiveError: the private directory cannot be created.
        """
        self._guarded(self._begin)

    def _begin(self) -> None:
        self._stage.open()
        next(self._parser)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the archive.

        Raises:
            ArchiveError: what was read so far cannot be accepted; every later call raises it again.
        """
        self._guarded(lambda: self._parser.send(data) if data else None)

    def finish(self) -> None:
        """Move the content to its place, as the one step that anybody can see.

        Raises:
            ArchiveError: the archive is not whole, or one of its links leads out of it.
        """
        self._guarded(self._finish)

    def discard(self) -> None:
        """Remove everything that is not in its place; may be called at any time, and again."""
        self._parser.close()
        self._failure = self._failure or ArchiveError("the archive was given up")
        self._stage.close()

    def _guarded(self, step: Callable[[], object]) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            step()
        except ArchiveError as error:
            self._failure = error
            raise
        except OSError as error:
            self._failure = ArchiveError(
                f"cannot write {shown(self._member)}: {error.strerror}",
                remedy="free some space, or name another destination",
            )
            raise self._failure from error

    def _refuse(self, why: str) -> NoReturn:
        raise ArchiveError(
            f"the archive from the instance is refused: {shown(self._member)}: {why}",
            remedy="change or remove it inside the instance, or download its parts by themselves",
        )

    def _parse(self) -> Generator[None, bytes, None]:
        """Parse the stream, pausing wherever more bytes are needed."""
        meta = _Meta()
        while any(block := (yield from self._take(BLOCK))):
            if block[148:156].strip(b" \0") == b"" or _number(block[148:156]) != _checksum(block):
                self._refuse("the header behind it is damaged")
            kind, size = block[156:157], _number(block[124:136])
            if kind in b"LKxg":
                if size > _META_LIMIT:
                    self._refuse("an extended header is too large")
                text = (yield from self._take(size + -size % BLOCK))[:size]
                self._extend(meta, kind, text)
                continue
            yield from self._extract(
                block, kind, meta.size if meta.size is not None else size, meta
            )
            meta = _Meta()
        if meta != _Meta():
            self._refuse("an extended header describes nothing")
        self._complete = True
        while True:
            if any(self._buffer):
                self._refuse("there is more behind the end of the archive")
            self._buffer.clear()
            self._buffer += yield

    def _take(self, size: int) -> Generator[None, bytes, bytes]:
        while len(self._buffer) < size:
            self._buffer += yield
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _extend(self, meta: _Meta, kind: bytes, text: bytes) -> None:
        if kind == b"L":
            meta.name = _text(text)
        elif kind == b"K":
            meta.target = _text(text)
        elif kind == b"x":
            for key, value in self._records(text):
                if key == b"path":
                    meta.name = _text(value)
                elif key == b"linkpath":
                    meta.target = _text(value)
                elif key == b"size" and value.isdigit() and len(value) < 20:
                    meta.size = int(value)
                elif key == b"mtime":
                    with contextlib.suppress(ValueError):
                        meta.mtime = float(value)
                elif key.startswith(b"GNU.sparse") or key == b"size":
                    self._refuse(f"{shown(_text(key))} is not supported")

    def _records(self, text: bytes) -> Iterator[tuple[bytes, bytes]]:
        start = 0
        while start < len(text):
            digits, space, _ = text[start : start + 8].partition(b" ")
            length = int(digits) if space and digits.isdigit() else 0
            record = text[start : start + length]
            key, equals, value = record[len(digits) + 1 :].partition(b"=")
            if not (length and len(record) == length and equals and value.endswith(b"\n")):
                self._refuse("an extended header is damaged")
            yield key, value[:-1]
            start += length

    def _extract(
        self, block: bytes, code: bytes, size: int, meta: _Meta
    ) -> Generator[None, bytes, None]:
        name = meta.name
        if name is None:
            name = _text(block[:100])
            prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
            name = f"{prefix}/{name}" if prefix else name
        target = meta.target if meta.target is not None else _text(block[157:257])
        kind = _KINDS.get(code)
        self._member = name
        if kind is None and self._as_is and code in b"346":
            yield from self._take(size + -size % BLOCK)
            return
        if kind is None:
            self._refuse("it is no file, directory or link")
        if kind == "file" and name.endswith("/"):
            kind = "directory"  # as archives before POSIX say it
        path = self._path(name)
        self._count()
        if self._kinds.get(path, kind) != kind and {self._kinds[path], kind} != {
            "file",
            "hard link",
        }:
            self._refuse("it comes twice, as different things")
        if kind != "file" and size:
            self._refuse("it has content although it is no file")
        mode = _number(block[100:108]) & 0o777  # set-id and sticky bits never reach the host
        mtime = meta.mtime if meta.mtime is not None else float(_number(block[136:148]))
        mtime = mtime if 0 <= mtime < 1 << 33 else 0.0
        with self._folder(path[:-1]) as folder:
            if path in self._kinds and kind != "directory":
                os.unlink(path[-1], dir_fd=folder)
                self._links.pop(path, None)
            if kind == "directory":
                if path not in self._kinds:
                    # Without u+rwx, its own content could not be written nor the whole removed.
                    os.mkdir(path[-1], mode | 0o700, dir_fd=folder)
                self._times[path] = mtime
            elif kind == "symlink":
                if not target or "\0" in target or (target[0] == "/" and not self._as_is):
                    self._refuse(f"it is a link to {shown(target)}, which is not inside it")
                os.symlink(target, path[-1], dir_fd=folder)
                self._links[path] = target
            elif kind == "hard link":
                self._link(self._path(target), path[-1], folder)
            else:
                if size > self._left:
                    self._refuse("the archive is larger than the limit")
                self._left -= size
                yield from self._write(os.open(path[-1], _CREATE, mode, dir_fd=folder), size, mtime)
            self._kinds[path] = kind

    def _count(self) -> None:
        self._members -= 1
        if self._members < 0:
            self._refuse("there are too many members")

    def _link(self, source: tuple[str, ...], name: str, folder: int) -> None:
        if self._kinds.get(source) not in {"file", "hard link"}:
            self._refuse("it is a hard link to something that is not in the archive before it")
        with self._folder(source[:-1]) as origin:
            os.link(source[-1], name, src_dir_fd=origin, dst_dir_fd=folder, follow_symlinks=False)

    def _write(self, descriptor: int, size: int, mtime: float) -> Generator[None, bytes, None]:
        try:
            left = size
            while left:
                if not self._buffer:
                    self._buffer += yield
                data = bytes(self._buffer[:left])
                del self._buffer[:left]
                left -= len(data)
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
            os.utime(descriptor, (mtime, mtime))
        finally:
            os.close(descriptor)
        yield from self._take(-size % BLOCK)

    def _path(self, name: str) -> tuple[str, ...]:
        path = tuple(part for part in name.split("/") if part not in {"", "."})
        if name.startswith("/") or ".." in path or "\0" in name or not path:
            self._refuse("its name is not a path below the top")
        if len(path) > _DEPTH:
            self._refuse("it lies too deep")
        if path[0] != self._name:
            self._refuse(f"only {shown(self._name)} was asked for")
        return path

    @contextlib.contextmanager
    def _folder(self, path: tuple[str, ...]) -> Iterator[int]:
        """Open a directory of the archive step by step, creating what no member has announced."""
        folder = os.dup(self._stage.descriptor)
        try:
            for depth in range(1, len(path) + 1):
                here = path[:depth]
                if self._kinds.setdefault(here, "directory") != "directory":
                    self._refuse("it lies below something that is no directory")
                try:
                    child = os.open(here[-1], DIRECTORY, dir_fd=folder)
                except FileNotFoundError:
                    self._count()
                    os.mkdir(here[-1], dir_fd=folder)
                    child = os.open(here[-1], DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = child
            yield folder
        finally:
            os.close(folder)

    def _finish(self) -> None:
        if not self._complete:
            self._refuse("the archive breaks off")
        top = (self._name,)
        if top not in self._kinds:
            self._refuse("the archive is empty")
        for path, target in self._links.items():
            if (path == top or not self._as_is) and not self._contained(path, target):
                self._member = "/".join(path)
                self._refuse(f"it is a link to {shown(target)}, which is not inside it")
        for path, mtime in self._times.items():
            with self._folder(path) as folder:
                os.utime(folder, (mtime, mtime))
        self._member = str(self._final)
        if self._kinds[top] == "directory" and os.path.lexists(self._final):
            raise ArchiveError(f"{self._final} exists", remedy="remove it, or name another one")
        os.rename(
            self._name,
            self._final.name,
            src_dir_fd=self._stage.descriptor,
            dst_dir_fd=self._stage.parent,
        )

    def _contained(self, path: tuple[str, ...], target: str) -> bool:
        """Whether a link stays below the top at every step, through the other links it meets."""
        here = list(path[:-1])
        parts = target.split("/")[::-1]
        links = _LINK_LIMIT
        while parts:
            part = parts.pop()
            if part == "..":
                here.pop()
            elif part not in {"", "."}:
                here.append(part)
                if (further := self._links.get(tuple(here))) is not None:
                    here.pop()
                    parts += further.split("/")[::-1]
                    links -= 1
            if here[:1] != [self._name] or links < 0:
                return False
        # The file system has the last word: it may take names for equal that we take for different.
        stage = os.path.realpath(self._stage.path / self._name)
        real = os.path.realpath(self._stage.path / Path(*path))
        return real == stage or real.startswith(stage + os.sep)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(ENCODING, "surrogateescape")


def _number(field: bytes) -> int:
    """Read a number as tar has it, octal or GNU's binary; nonsense is a size nobody accepts."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    try:
        return int(digits or b"0", 8)
    except ValueError:
        return 1 << 90


def _checksum(block: bytes) -> int:
    return sum(block[:148]) + 8 * 32 + sum(block[156:])
