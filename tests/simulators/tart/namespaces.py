"""The few system calls that make a guest of a process; Python 3.11 has no names for them."""

from __future__ import annotations

import ctypes
import os
import signal
import struct

NEW_MOUNTS, NEW_HOSTNAME, NEW_IPC, NEW_PIDS = 0x00020000, 0x04000000, 0x08000000, 0x20000000
READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000
NO_SUID, NO_DEVICES, NO_EXEC = 0x2, 0x4, 0x8

_DETACH, _DEATH_SIGNAL, _PIVOT_ROOT = 0x2, 1, {"x86_64": 155, "aarch64": 41}
_NEW_USERS = 0x10000000
_HERE, _EMPTY_PATH = -100, 0x1000
_OPEN_TREE, _TREE_CLONE = 428, 0x80001
_MOVE_MOUNT, _MOVE_EMPTY_PATH = 429, 0x4
_RENAME, _EXCHANGE = {"x86_64": 316, "aarch64": 276}, 0x2
_SET_ATTRIBUTES, _ATTRIBUTE_READ_ONLY, _ATTRIBUTE_IDS = 442, 0x1, 0x00100000
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def enter(descriptor: int, flags: int) -> None:
    """Put the children of this process into the namespace of a descriptor."""
    _check(_libc.setns(descriptor, flags), "setns")


def die_with_parent() -> None:
    """Have the kernel kill this process as soon as its parent is dead, however that died."""
    _check(_libc.prctl(_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0), "prctl")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    result = _libc.mount(
        source.encode(),
        target.encode(),
        kind.encode(),
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _check(result, f"mount {kind} {source} on {target}")


def bind(source: str, target: str) -> None:
    mount(source, target, flags=BIND | RECURSIVE)


def swapped(users: int, groups: int) -> int:
    """A descriptor for `share`: the caller's user and root change places, and so do two groups."""
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            unshare(_NEW_USERS)
            os.write(ready[1], b".")
            os.read(done[0], 1)
        finally:
            os._exit(0)
    os.read(ready[0], 1)
    for name, other in (("uid", users), ("gid", groups)):
        lines = f"0 {other} 1\n1 1 {other - 1}\n{other} 0 1\n{other + 1} {other + 1} 100000\n"
        with open(f"/proc/{pid}/{name}_map", "w", encoding="ascii") as file:
            file.write(lines)
    descriptor = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    os.write(done[1], b".")
    os.waitpid(pid, 0)
    for end in (*ready, *done):
        os.close(end)
    return descriptor


def share(source: str, target: str, owners: int, *, read_only: bool) -> None:
    """Show a directory somewhere else, with owners changed as a descriptor of `swapped` says."""
    tree = _libc.syscall(_OPEN_TREE, _HERE, source.encode(), _TREE_CLONE)
    _check(min(tree, 0), f"open_tree {source}")
    attributes = _ATTRIBUTE_IDS | (_ATTRIBUTE_READ_ONLY if read_only else 0)
    changes = struct.pack("QQQQ", attributes, 0, 0, owners)
    result = _libc.syscall(_SET_ATTRIBUTES, tree, b"", _EMPTY_PATH, changes, len(changes))
    _check(result, f"mount_setattr {source}")
    moved = _libc.syscall(_MOVE_MOUNT, tree, b"", _HERE, target.encode(), _MOVE_EMPTY_PATH)
    _check(moved, f"move_mount {target}")
    os.close(tree)


def exchange(one: str, other: str) -> None:
    """Have two paths change places, so that neither is ever missing."""
    number = _RENAME[os.uname().machine]
    result = _libc.syscall(number, _HERE, one.encode(), _HERE, other.encode(), _EXCHANGE)
    _check(result, f"rename {one}")


def change_root(path: str) -> None:
    """Make a mount point the root, and the old root unreachable."""
    os.chdir(path)
    _check(_libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _DETACH), "umount")
    os.chdir("/")
