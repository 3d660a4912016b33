"""The few system calls that make a guest of a process; Python 3.11 has no names for them."""

from __future__ import annotations

import ctypes
import os
import signal

NEW_MOUNTS, NEW_HOSTNAME, NEW_IPC, NEW_PIDS = 0x00020000, 0x04000000, 0x08000000, 0x20000000
READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000
NO_SUID, NO_DEVICES, NO_EXEC = 0x2, 0x4, 0x8

_DETACH, _DEATH_SIGNAL, _PIVOT_ROOT = 0x2, 1, {"x86_64": 155, "aarch64": 41}
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


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    mount(source, target, flags=BIND | RECURSIVE)
    if read_only:
        mount("", target, flags=BIND | REMOUNT | READ_ONLY)


def change_root(path: str) -> None:
    """Make a mount point the root, and the old root unreachable."""
    os.chdir(path)
    _check(_libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _DETACH), "umount")
    os.chdir("/")
