"""A file system in memory that knows what of it would survive a power loss, and who has a lock."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator

import attrs

Names = dict[str, "Inode"]


class Inode:
    """A file, with the attributes of `os.stat_result` that somebody looks at.

    Attributes:
        data: what a read gives.
        synced: what a read gives after a power loss, at least.
        reserved: bytes that are there for certain, even on a full disk.
        exclusive: who holds the exclusive lock.
        shared: who holds the shared lock.
        author: who has made it.
        counts: whether its author knows that its name is durable.
    """

    __slots__ = (
        "author", "counts", "data", "exclusive", "reserved", "shared", "st_dev", "st_ino",
        "st_mtime", "st_nlink", "synced",
    )  # fmt: skip

    def __init__(self, number: int, now: float, data: bytes = b"", author: object = None) -> None:
        self.author = author
        self.counts = False
        self.data = bytearray(data)
        self.synced = data
        self.reserved = len(data)
        self.exclusive: Opened | None = None
        self.shared: set[Opened] = set()
        self.st_dev = 1
        self.st_ino = number
        self.st_mtime = now
        self.st_nlink = 1


class Opened:
    """An open file, shared by those who inherit it; its lock lives as long as any of them has it.

    Attributes:
        owner: whose it is, for whoever looks at locks.
        inode: None for a directory.
        directory: None for a file.
        references: how many descriptors there are.
    """

    __slots__ = ("directory", "inode", "owner", "position", "references")

    def __init__(self, owner: object, inode: Inode | None, directory: str | None) -> None:
        self.owner = owner
        self.inode = inode
        self.directory = directory
        self.position = 0
        self.references = 1


@attrs.define(eq=False)
class Disk:
    """Directories of files; nothing below them, no permissions, no links.

    Attributes:
        names: directory -> name -> file, as everybody sees it.
        durable: the same after a power loss, as far as directories were synced.
        full: whether there is no space left.
    """

    names: dict[str, Names] = attrs.field(factory=dict)
    durable: dict[str, Names] = attrs.field(factory=dict)
    full: bool = False
    _changed: dict[str, dict[str, list[Inode | None]]] = attrs.field(factory=dict)
    _count: int = 0

    def make(self, directory: str) -> None:
        """Make a directory, durably."""
        self.names[directory], self.durable[directory] = {}, {}
        self._changed[directory] = {}

    def split(self, path: str) -> tuple[str, str]:
        """Take a path apart.

        Raises:
            FileNotFoundError: there is no such directory.
        """
        directory, _, name = path.rpartition("/")
        if directory not in self.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return directory, name

    def find(self, path: str) -> Inode:
        """The file at a path.

        Raises:
            FileNotFoundError: there is none.
        """
        directory, _, name = path.rpartition("/")
        try:
            return self.names[directory][name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None

    def open(self, path: str, flags: int, owner: object, now: float) -> Opened:
        """See `os.open`."""
        if flags & os.O_DIRECTORY:
            if path not in self.names:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            return Opened(owner, None, path)
        directory, name = self.split(path)
        inode = self.names[directory].get(name)
        if inode is None:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            self._need_space()
            self._count += 1
            inode = Inode(self._count, now, author=owner)
            self._set(directory, name, inode)
        elif flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        opened = Opened(owner, inode, None)
        if flags & os.O_APPEND:
            opened.position = len(inode.data)
        return opened

    def close(self, opened: Opened) -> None:
        """Give up one descriptor; the last one gives up the lock."""
        opened.references -= 1
        if opened.references == 0 and opened.inode is not None:
            self._unlock(opened, opened.inode)

    def lock(self, opened: Opened, operation: int) -> None:
        """See `fcntl.flock`.

        Raises:
            BlockingIOError: someone else has it; whether the caller would wait is for him to know.
        """
        inode = opened.inode
        assert inode is not None
        if operation & fcntl.LOCK_SH:
            taken = inode.exclusive not in {None, opened}
        else:
            taken = inode.exclusive not in {None, opened} or bool(inode.shared - {opened})
        if taken:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self._unlock(opened, inode)
        if operation & fcntl.LOCK_SH:
            inode.shared.add(opened)
        else:
            inode.exclusive = opened

    def write(self, inode: Inode, data: bytes, position: int) -> int:
        """Write as much as there is space for.

        Raises:
            OSError: that is nothing.
        """
        end = position + len(data)
        if self.full and end > inode.reserved:
            end = inode.reserved
            if end <= position:
                self._need_space()
            data = data[: end - position]
        if len(inode.data) < position:
            inode.data.extend(bytes(position - len(inode.data)))
        inode.data[position:end] = data
        inode.reserved = max(inode.reserved, end)
        return len(data)

    def reserve(self, inode: Inode, size: int) -> None:
        """See `os.posix_fallocate`."""
        if size > inode.reserved:
            self._need_space()
            inode.reserved = size
        inode.data.extend(bytes(max(0, size - len(inode.data))))

    def sync(self, opened: Opened) -> None:
        """Make the bytes of a file, or the names of a directory, survive a power loss."""
        if opened.inode is not None:
            opened.inode.synced = bytes(opened.inode.data)
        else:
            assert opened.directory is not None
            names = self.durable[opened.directory] = dict(self.names[opened.directory])
            for inode in names.values():
                inode.counts = inode.counts or inode.author is opened.owner
            self._changed[opened.directory].clear()

    def rename(self, source: str, target: str) -> None:
        """See `os.rename`."""
        inode = self.find(source)
        directory, name = self.split(target)
        replaced = self.names[directory].get(name)
        if replaced is not None:
            replaced.st_nlink -= 1
        self._set(directory, name, inode)
        self._set(*self.split(source), None)

    def unlink(self, path: str) -> None:
        """See `os.unlink`."""
        inode = self.find(path)
        self._set(*self.split(path), None)
        inode.st_nlink -= 1

    def lose_power(self, choose: Callable[[int], int]) -> None:
        """Keep what was synced, and of the rest anything that a file system may have written.

        A name that was changed since its directory was synced has any of the files that it had
        meanwhile; bytes are there, or not, or up to some point, or are NUL where they were not yet
        written. Everybody with an open file must be dead.

        Args:
            choose: takes one of so many possibilities, by its number.
        """
        for directory, changed in self._changed.items():
            names = dict(self.durable[directory])
            for name, states in changed.items():
                state = [self.durable[directory].get(name), *states][choose(len(states) + 1)]
                names.pop(name, None)
                if state is not None:
                    names[name] = state
            self.names[directory], self.durable[directory] = names, dict(names)
            changed.clear()
        for _, inode in self.files():
            inode.st_nlink = sum(inode is other for _, other in self.files())
            if inode.data != inode.synced:
                new, old = bytes(inode.data), inode.synced
                half = new[: (len(old) + len(new.rstrip(b"\0"))) // 2]
                blank = old + bytes(max(0, len(new) - len(old)))
                inode.synced = (old, new, half, blank)[choose(4)]
                inode.data[:] = inode.synced

    def files(self) -> Iterator[tuple[str, Inode]]:
        """Every path with its file."""
        for directory, names in self.names.items():
            for name, inode in names.items():
                yield f"{directory}/{name}", inode

    def _set(self, directory: str, name: str, inode: Inode | None) -> None:
        if inode is None:
            del self.names[directory][name]
        else:
            self.names[directory][name] = inode
        self._changed[directory].setdefault(name, []).append(inode)

    def _unlock(self, opened: Opened, inode: Inode) -> None:
        if inode.exclusive is opened:
            inode.exclusive = None
        inode.shared.discard(opened)

    def _need_space(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
