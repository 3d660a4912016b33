"""A machine on which processes run and are killed: its calls stand below core in a simulation."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import attrs

from claw_core import lifeline
from claw_core.testing.clock import Killed, Loop, Timeline
from claw_core.testing.disk import Disk, Inode, Opened

Trap: TypeAlias = Literal["kill", "enospc", "eio", "preempt", "cancel"]
"""What happens instead of a system call, or, with `preempt` and `cancel`, before it."""

CALLS: Final = (
    "open_file", "close", "pread", "pwrite", "write", "fstat", "stat", "exists", "listdir",
    "rename", "unlink", "fsync", "fdatasync", "posix_fallocate", "flock", "getpid", "wall_clock",
    "monotonic", "boottime", "boot_id", "token_hex", "uniform",
)  # fmt: skip
"""The calls of `vfs` that a machine answers; on macOS `file_control` is one more."""
_ERRORS: Final = {"enospc": errno.ENOSPC, "eio": errno.EIO}
_FAIL: Final = {
    "enospc": frozenset({"create", "pwrite", "write", "fsync", "fdatasync", "fallocate", "rename"}),
    "eio": frozenset(
        {
            *{"create", "open", "pread", "pwrite", "write", "fsync", "fdatasync"},
            *{"rename", "unlink", "listdir"},
        }
    ),
}
"""Which calls can fail in which way."""
_FIRST: Final = 1 << 24
"""The lowest number of a descriptor: no real one gets there."""


class Process(Loop):
    """One process: its event loop, its descriptors, and what is going to happen to it.

    Attributes:
        name: for the trace.
        number: what `os.getpid` gives; the first process is number 0.
        main: what it does; it ends with that.
        traps: number of a system call -> what happens there.
        calls: system calls so far.
        status: what it tells its parent; None where it could not.
        at_end: called when it has ended, however that was.
    """

    def __init__(self, machine: Machine, name: str, number: int) -> None:
        super().__init__(machine.timeline)
        self.machine = machine
        self.name = name
        self.number = number
        self.main: Any = None
        self.traps: Mapping[int, Trap] = {}
        self.calls = 0
        self.status: int | None = None
        self.at_end: list[Callable[[], object]] = []
        self.descriptors: set[int] = set()

    @property
    def owns(self) -> bool:
        """Whether it has instances of its own, by its name."""
        return self.name[0] in "oh"

    def thread_delay(self) -> float | None:
        """Most threads are quick; the others start when somebody else has gone on."""
        chance = self.machine.chance.random()
        return None if chance < 0.8 else 0.01 * (chance - 0.8)

    def finish(self, main: asyncio.Task[Any]) -> None:
        """End, since `main` has; an error that it let out is a failure of the process."""
        if not main.cancelled() and (error := main.exception()) is not None:
            self.failures.append(error)
        self.machine.end(self)


@attrs.define(eq=False)
class Machine:
    """The kernel of a world.

    Attributes:
        chance: where everything that is random comes from.
        traps: number of a process -> number of a system call -> what happens there.
        boot: changes with every boot.
        wall: seconds by which the wall clock is off.
        asleep: seconds for which the machine has slept.
        processes: all that were ever started.
        unlinking: told of every file before its name is removed.
        writing: told of every file before something is written into it at some place.
        noting: told of every system call, if anybody wants to know.
    """

    chance: random.Random
    traps: Mapping[int, Mapping[int, Trap]] = attrs.field(factory=dict)
    timeline: Timeline = attrs.field(factory=Timeline)
    disk: Disk = attrs.field(factory=Disk)
    boot: int = 1
    wall: float = 1e9
    asleep: float = 0.0
    processes: list[Process] = attrs.field(factory=list)
    unlinking: Callable[[str], object] | None = None
    writing: Callable[[Inode], object] | None = None
    noting: Callable[[str], object] | None = None
    _releasing: bool = False
    _opened: dict[int, Opened] = attrs.field(factory=dict)
    _count: int = _FIRST

    def calls(self) -> dict[str, Callable[..., Any]]:
        """What `vfs.substitute` takes."""
        return {name: getattr(self, name) for name in CALLS}

    def spawn(self, name: str, work: Callable[[], Coroutine[Any, Any, object]]) -> Process:
        """Start a process that ends when its work does."""
        process = Process(self, name, len(self.processes))
        process.traps = self.traps.get(process.number, {})
        self.processes.append(process)

        def begin() -> None:
            process.main = process.create_task(work())
            process.main.add_done_callback(process.finish)

        process.call_soon(begin)
        return process

    def kill(self, process: Process) -> None:
        """End a process as SIGKILL does; raises `Killed` in a process that kills itself.

        The kernel closes its descriptors, so its locks are free, but for those that a child has.
        """
        self.end(process)
        if self.timeline.current is process:
            raise Killed

    def end(self, process: Process) -> None:
        """Close what a process leaves open, and tell whoever waits for its end."""
        if process.dead:
            return
        self._releasing = True
        for descriptor in tuple(process.descriptors):
            if lifeline.holds(descriptor):
                lifeline.close(descriptor)
            else:
                self.close(descriptor)
        self._releasing = False
        process.dead = True
        for callback in process.at_end:
            self.timeline.call(0.0, callback)

    def inherit(self, descriptor: int) -> Opened:
        """Let a child have an open file as well; close it with `disk.close`."""
        opened = self._opened[descriptor]
        opened.references += 1
        return opened

    def holder(self, inode: Inode) -> object:
        """Who has the exclusive lock of a file."""
        return inode.exclusive.owner if inode.exclusive else None

    def open_file(
        self, path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        """See `os.open`."""
        process = self._enter("create" if flags & os.O_CREAT else "open")
        where = str(path)
        if dir_fd is not None:
            where = f"{self._opened[dir_fd].directory}/{where}"
        opened = self.disk.open(where, flags, process, self.wall_clock())
        self._count += 1
        self._opened[self._count] = opened
        process.descriptors.add(self._count)
        return self._count

    def close(self, descriptor: int) -> None:
        """See `os.close`."""
        if descriptor < _FIRST:
            os.close(descriptor)  # a real one, such as a socket that cannot be bound here
            return
        if not self._releasing:
            self._enter("close")
        opened = self._opened.pop(descriptor)
        assert isinstance(opened.owner, Process)
        opened.owner.descriptors.discard(descriptor)
        self.disk.close(opened)

    def pread(self, descriptor: int, size: int, position: int) -> bytes:
        """See `os.pread`."""
        self._enter("pread")
        return bytes(self._file(descriptor).data[position : position + size])

    def pwrite(self, descriptor: int, data: bytes, position: int) -> int:
        """See `os.pwrite`."""
        self._enter("pwrite")
        inode = self._file(descriptor)
        if self.writing is not None:
            self.writing(inode)
        return self.disk.write(inode, bytes(data), position)

    def write(self, descriptor: int, data: bytes) -> int:
        """See `os.write`."""
        self._enter("write")
        opened = self._opened[descriptor]
        count = self.disk.write(self._file(descriptor), bytes(data), opened.position)
        opened.position += count
        return count

    def fstat(self, descriptor: int) -> Inode:
        """See `os.fstat`."""
        self._enter("fstat")
        return self._file(descriptor)

    def stat(self, path: str | Path, *, dir_fd: int | None = None) -> Inode:
        """See `os.stat`."""
        self._enter("stat")
        where = str(path)
        if dir_fd is not None:
            where = f"{self._opened[dir_fd].directory}/{where}"
        return self.disk.find(where)

    def exists(self, path: str | Path) -> bool:
        """See `os.path.exists`."""
        self._enter("exists")
        where = str(path)
        directory, _, name = where.rpartition("/")
        return where in self.disk.names or name in self.disk.names.get(directory, ())

    def listdir(self, descriptor: int) -> list[str]:
        """See `os.listdir`."""
        self._enter("listdir")
        directory = self._opened[descriptor].directory
        assert directory is not None
        return list(self.disk.names[directory])

    def rename(self, source: str | Path, target: str | Path) -> None:
        """See `os.rename`."""
        self._enter("rename")
        self.disk.rename(str(source), str(target))

    def unlink(self, path: str | Path) -> None:
        """See `os.unlink`."""
        self._enter("unlink")
        where = str(path)
        if self.unlinking is not None:
            self.unlinking(where)
        self.disk.unlink(where)

    def fsync(self, descriptor: int) -> None:
        """See `os.fsync`."""
        self._enter("fsync")
        self.disk.sync(self._opened[descriptor])

    def fdatasync(self, descriptor: int) -> None:
        """See `os.fdatasync`."""
        self._enter("fdatasync")
        self.disk.sync(self._opened[descriptor])

    def posix_fallocate(self, descriptor: int, offset: int, size: int) -> None:
        """See `os.posix_fallocate`."""
        self._enter("fallocate")
        self.disk.reserve(self._file(descriptor), offset + size)

    def flock(self, descriptor: int, operation: int) -> None:
        """See `fcntl.flock`; nobody here waits for a lock, since only a sweep could hold it."""
        self._enter("flock")
        try:
            self.disk.lock(self._opened[descriptor], operation)
        except BlockingIOError:
            assert operation & fcntl.LOCK_NB, "it would wait for a lock for ever"
            raise

    def getpid(self) -> int:
        """See `os.getpid`."""
        return self._process().number

    def wall_clock(self) -> float:
        """See `time.time`."""
        return self.wall + self.asleep + self.timeline.now

    def monotonic(self) -> float:
        """See `time.monotonic`."""
        return self.timeline.now

    def boottime(self) -> float:
        """See `vfs.boottime`."""
        return self.asleep + self.timeline.now

    def boot_id(self) -> str:
        """See `vfs.boot_id`."""
        return f"boot-{self.boot}"

    def token_hex(self, size: int) -> str:
        """See `secrets.token_hex`."""
        return f"{self.chance.getrandbits(8 * size):0{2 * size}x}"

    def uniform(self, low: float, high: float) -> float:
        """See `random.uniform`."""
        return low + (high - low) * self.chance.random()

    def _process(self) -> Process:
        process = self.timeline.current
        assert isinstance(process, Process)
        return process

    def _file(self, descriptor: int) -> Inode:
        inode = self._opened[descriptor].inode
        assert inode is not None
        return inode

    def _enter(self, call: str) -> Process:
        """Let happen what is due to happen at this system call."""
        process = self.timeline.current
        assert isinstance(process, Process)
        if process.dead:
            raise Killed
        process.calls += 1
        if self.noting is not None:
            self.noting(call)
        trap = process.traps.get(process.calls)
        if trap is not None:
            self._spring(process, trap, call)
        return process

    def _spring(self, process: Process, trap: Trap, call: str) -> None:
        if trap == "kill":
            self.kill(process)
        elif trap == "preempt":
            self.timeline.others(3.0 * self.chance.random())
            if process.dead:
                raise Killed
        elif trap == "cancel":
            process.main.cancel()
        elif call in _FAIL[trap]:
            code = _ERRORS[trap]
            raise OSError(code, os.strerror(code))
