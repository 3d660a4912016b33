"""The system call filter of a payload: what is not allowed by name does not exist for it.

The program is a binary search over ranges of numbers, whose leaves answer or go on to look at the
arguments. Opcodes from Linux's `linux/bpf_common.h` and `linux/seccomp.h`.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from claw_core.local import kernel
from claw_core.local.syscalls import ALLOWED, REFUSED

AUDIT_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

LOAD: Final = 0x20
AND: Final = 0x54
JUMP: Final = 0x05
JUMP_IF_EQUAL: Final = 0x15
JUMP_IF_AT_LEAST: Final = 0x35
JUMP_IF_ANY_BIT: Final = 0x45
RETURN: Final = 0x06

ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
ERRNO: Final = 0x00050000

SET_IDS: Final = 0o6000
_CREATES: Final = 0o100 | 0o20000000  # O_CREAT, __O_TMPFILE
_NAMESPACES: Final = 0x7E020000  # every CLONE_NEW* that fits into the flags of clone
_TERMINAL_INPUT: Final = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_OWNER_BY_IOCTL: Final = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP
_OWNER_BY_FCNTL: Final = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX
_DATAGRAM: Final = 2  # this bit is set in SOCK_DGRAM and SOCK_RAW; not in STREAM, SEQPACKET
_TRUNCATE, _ACCESS_MODE = 0o1000, 0o3
_SHARED_MEMORY_AND_QUEUES: Final = (
    "shmget", "shmat", "shmctl", "semget", "semop", "semtimedop", "semctl", "msgget", "msgsnd",
    "msgrcv", "msgctl", "mq_open", "mq_unlink",
)  # fmt: skip
_PERSONALITIES: Final = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16

Instruction = tuple[int, int, int, int]
Rule = list[Instruction]


def refuse(number: int = errno.EPERM) -> int:
    """The verdict that lets a call fail with an error number."""
    return ERRNO | number


def _argument(index: int) -> Instruction:
    """Load the low word of an argument; both architectures are little-endian."""
    return (LOAD, 0, 0, 16 + 8 * index)


def _one_of(index: int, values: Iterable[int], hit: int, miss: int) -> Rule:
    """Answer `hit` where an argument has one of the values, else `miss`."""
    rule = [_argument(index)]
    for value in values:
        rule += [(JUMP_IF_EQUAL, 0, 1, value & 0xFFFFFFFF), (RETURN, 0, 0, hit)]
    return [*rule, (RETURN, 0, 0, miss)]


def _no_bits(index: int, bits: int) -> Rule:
    """Refuse where an argument has any of the bits."""
    return [
        _argument(index),
        (JUMP_IF_ANY_BIT, 0, 1, bits),
        (RETURN, 0, 0, refuse()),
        (RETURN, 0, 0, ALLOW),
    ]


def _no_set_ids_on_creation(flags: int, mode: int) -> Rule:
    """Look at the mode only where something is created: else its register holds anything."""
    head: Rule = [_argument(flags), (JUMP_IF_ANY_BIT, 1, 0, _CREATES), (RETURN, 0, 0, ALLOW)]
    return head + _no_bits(mode, SET_IDS)


def _no_truncation_by_reader(flags: int) -> Rule:
    """Refuse O_TRUNC unless the file is opened for writing; go on with what follows otherwise."""
    rule: Rule = [_argument(flags), (AND, 0, 0, _TRUNCATE | _ACCESS_MODE)]
    for mode in (0, 3):
        rule += [(JUMP_IF_EQUAL, 0, 1, _TRUNCATE | mode), (RETURN, 0, 0, refuse())]
    return rule


def rules(families: Iterable[int]) -> dict[str, Rule]:
    """The calls whose arguments decide, in every sandbox.

    Args:
        families: address families of sockets that may be made.
    """
    # A file with the set-user-id bit, left in a mount, would run as its owner outside.
    modes = {name: _no_bits(1, SET_IDS) for name in ("chmod", "fchmod", "creat", "mknod", "mkdir")}
    modes |= {
        name: _no_bits(2, SET_IDS) for name in ("fchmodat", "fchmodat2", "mknodat", "mkdirat")
    }
    modes["open"] = _no_set_ids_on_creation(1, 2)
    modes["openat"] = _no_set_ids_on_creation(2, 3)
    return modes | {
        "clone": _no_bits(0, _NAMESPACES),
        "ioctl": _one_of(1, _TERMINAL_INPUT, refuse(), ALLOW),
        "socket": _one_of(0, families, ALLOW, refuse(errno.EAFNOSUPPORT)),
        "personality": _one_of(0, _PERSONALITIES, ALLOW, refuse()),
        # Limits of another process: a CPU limit of 0 is as good as a kill.
        "prlimit64": _one_of(0, (0,), ALLOW, refuse()),
    }


def rules_of_shared_system(
    families: Iterable[int], protected: Iterable[int], *, truncation: bool
) -> dict[str, Rule]:
    """The same where the payload has no namespaces: it shares processes and IPC with the host.

    Args:
        families: address families of sockets that may be made.
        protected: pids that may not be signalled, nor be reached by a signal to everybody.
        truncation: whether Landlock knows that cutting a file short is writing to it.
    """
    chosen = rules(families)
    pids = [number for pid in protected for number in (pid, -pid)]
    for name in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        chosen[name] = _one_of(0, (-1, *pids), refuse(), ALLOW)
    # Nor by asking the kernel to signal "the owner of this descriptor".
    chosen["fcntl"] = _one_of(1, _OWNER_BY_FCNTL, refuse(), ALLOW)
    chosen["ioctl"] = _one_of(1, _TERMINAL_INPUT + _OWNER_BY_IOCTL, refuse(), ALLOW)
    # Half a pair of datagram sockets can be connected again, to any socket of the host.
    chosen["socketpair"] = _no_bits(1, _DATAGRAM)
    for name in ("pidfd_open", "pidfd_send_signal", *_SHARED_MEMORY_AND_QUEUES):
        chosen[name] = [(RETURN, 0, 0, refuse())]
    if not truncation:
        chosen["truncate"] = [(RETURN, 0, 0, refuse())]
        for name, flags in (("open", 1), ("openat", 2)):
            chosen[name] = _no_truncation_by_reader(flags) + chosen[name]
    return chosen


def program(machine: str, chosen: dict[str, Rule]) -> list[Instruction]:
    """Assemble the filter for an architecture; see `simulate` in the tests for what it means."""
    column = kernel.MACHINES.index(machine)
    verdicts: dict[int, int | Rule] = {}
    for table, verdict in ((ALLOWED, ALLOW), (REFUSED, refuse())):
        for name, numbers in table.items():
            number = numbers[column]
            if number is not None:
                verdicts[number] = chosen.get(name, verdict) if table is ALLOWED else verdict
    starts: list[tuple[int, int | Rule]] = [(0, verdicts.get(0, refuse(errno.ENOSYS)))]
    for number in sorted({n + step for n in verdicts for step in (0, 1)}):
        answer = verdicts.get(number, refuse(errno.ENOSYS))
        if answer != starts[-1][1]:
            starts.append((number, answer))
    head: list[Instruction] = [
        (LOAD, 0, 0, 4),
        (JUMP_IF_EQUAL, 1, 0, AUDIT_ARCHITECTURES[machine]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0),
    ]
    return head + _search(starts)


def _search(starts: list[tuple[int, int | Rule]]) -> list[Instruction]:
    if len(starts) == 1:
        verdict = starts[0][1]
        return [(RETURN, 0, 0, verdict)] if isinstance(verdict, int) else list(verdict)
    middle = len(starts) // 2
    below, above = _search(starts[:middle]), _search(starts[middle:])
    # A conditional jump reaches 255 instructions, an unconditional one everything.
    return [
        (JUMP_IF_AT_LEAST, 1, 0, starts[middle][0]),
        (JUMP, 0, 0, len(above)),
        *above,
        *below,
    ]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def encode(instructions: list[Instruction], constants: Mapping[int, int] | None = None) -> bytes:
    """The filter as the kernel reads it, with constants replaced that are known only now."""
    known = {old & 0xFFFFFFFF: new & 0xFFFFFFFF for old, new in (constants or {}).items()}
    return b"".join(
        struct.pack("HBBI", code, yes, no, known.get(constant, constant))
        for code, yes, no, constant in instructions
    )


def installer(code: bytes) -> Callable[[], None]:
    """Return what installs a filter in this process, for good; everything is prepared before."""
    buffer = ctypes.create_string_buffer(code, len(code))
    header = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))

    def install() -> None:
        assert buffer is not None  # the header only holds its address
        kernel.prctl(kernel.PR_SET_SECCOMP, 2, ctypes.addressof(header))

    return install
