"""The system calls that Python has no function for; failures are OSErrors that name the call.

Numbers from Linux's headers for x86-64 and aarch64; calls younger than 5.0 have one number for all.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final

MACHINES: Final = ("x86_64", "aarch64")

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2

ATTR_RDONLY: Final = 0x1
ATTR_NOSUID: Final = 0x2
ATTR_NODEV: Final = 0x4
ATTR_NOEXEC: Final = 0x8
ATTR_IDMAP: Final = 0x00100000

PR_SET_DUMPABLE: Final = 4
PR_SET_SECCOMP: Final = 22
PR_CAPBSET_DROP: Final = 24
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

RESOLVE_NO_SYMLINKS: Final = 0x04

_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
_MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
_CAPABILITY_VERSION_3: Final = 0x20080522

_NUMBERS: Final = {
    "pivot_root": {"x86_64": 155, "aarch64": 41}.get(platform.machine(), -1),
    "open_tree": 428,
    "move_mount": 429,
    "openat2": 437,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def check(result: int, what: str) -> int:
    """Return the result, or raise what errno says.

    Raises:
        OSError: the call failed.
    """
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(name: str, *args: int | bytes | None) -> int:
    """Make a call by its name in the table above; integers are passed as longs."""
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result: int = _libc.syscall(ctypes.c_long(_NUMBERS[name]), *words)
    return check(result, name)


def prctl(option: int, *args: int) -> int:
    """Change an attribute of this process."""
    words = [ctypes.c_ulong(arg) for arg in (*args, 0, 0, 0, 0)[:4]]
    result: int = _libc.prctl(option, *words)
    return check(result, f"prctl {option}")


def unshare(flags: int) -> None:
    """Move this process (its children, for pids) into new namespaces."""
    check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount a new file system, or change the propagation of a mount."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    result: int = _libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3])
    check(result, f"mount {kind or 'flags'} at {target}")


def leave_old_root() -> None:
    """Make the current directory the root, and take the old root away for good."""
    syscall("pivot_root", b".", b".")
    check(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def clone_tree(descriptor: int, *, recursive: bool = True) -> int:
    """Return a detached copy of the mount at an O_PATH descriptor."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    return syscall("open_tree", descriptor, b"", flags)


def set_attributes(
    descriptor: int, attributes: int, *, recursive: bool = True, user_namespace: int = 0
) -> None:
    """Add attributes to a mount; nothing is ever taken away, so locked flags do not matter."""
    data = struct.pack("QQQQ", attributes, 0, 0, user_namespace)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    syscall("mount_setattr", descriptor, b"", flags, data, len(data))


def attach_tree(tree: int, mount_point: int) -> None:
    """Put a detached mount onto an O_PATH descriptor of a mount point."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    syscall("move_mount", tree, b"", mount_point, b"", flags)


def open_without_symlinks(path: str) -> int:
    """Return an O_PATH descriptor; a symlink in any component is an error (ELOOP)."""
    how = struct.pack("QQQ", os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS)
    return syscall("openat2", _AT_FDCWD, os.fsencode(path), how, len(how))


def drop_capabilities() -> None:
    """Give up every capability, and the ability to ever get one."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break  # the first one that this kernel does not know
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    check(_libc.capset(header, bytes(24)), "capset")
    prctl(PR_SET_NO_NEW_PRIVS, 1)
