"""Landlock: the kernel lets a payload touch only what is listed, whatever else goes wrong.

Rights and versions from Linux's `Documentation/userspace-api/landlock.rst`.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable
from typing import Final

from claw_core.local import kernel

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
ALL_OF_VERSION_1: Final = (1 << 13) - 1
_ON_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2


def version() -> int:
    """The version of Landlock's interface that this kernel offers; 0 is none."""
    try:
        return kernel.syscall("landlock_create_ruleset", None, 0, 1)
    except OSError:
        return 0


def make(
    readable: Iterable[str | int], writable: Iterable[str | int], *, scope: int, network: bool
) -> int | None:
    """Return rules for `enter`, or None without Landlock.

    They are about what is at the paths now: replacing it later gains nothing.

    Args:
        readable: paths, or open descriptors, below which everything may be read and executed.
        writable: the same for everything.
        scope: SCOPE_ bits for what must stay inside, where the kernel can (version 6).
        network: whether TCP may be used, where the kernel can forbid it (version 4).
    """
    known = version()
    if not known:
        return None
    handled = ALL_OF_VERSION_1
    for since, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        handled |= right if known >= since else 0
    fields = [handled]
    if known >= 4:
        fields.append(0 if network else 3)
    if known >= 6:
        fields.append(scope)
    attributes = struct.pack(f"{len(fields)}Q", *fields)
    rules = kernel.syscall("landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        for paths, rights in ((readable, EXECUTE | READ_FILE | READ_DIR), (writable, handled)):
            for path in paths:
                _allow(rules, path, rights & handled)
    except BaseException:
        os.close(rules)
        raise
    return rules


def enter(rules: int) -> None:
    """Confine this process and its future children for good."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.syscall("landlock_restrict_self", rules, 0)


def _allow(rules: int, path: str | int, rights: int) -> None:
    try:
        if isinstance(path, int):
            descriptor = os.dup(path)
        else:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return  # what is not there, or out of reach anyway, needs no permission
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _ON_FILES
        kernel.syscall("landlock_add_rule", rules, 1, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)
