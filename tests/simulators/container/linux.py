"""Calls of Linux that Python has no name for."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUTS, NEWIPC, NEWUSER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
NEWPID, NEWNET = 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_PDEATHSIG, _CAPBSET_DROP = 1, 24


def unshare(flags: int) -> None:
    """Leave namespaces; in a new user namespace become its root."""
    user, group = os.getuid(), os.getgid()
    _check(_libc.unshare(flags | (NEWUSER if user else 0)), "unshare")
    if user:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {user} 1"),
            ("gid_map", f"0 {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="utf-8") as file:
                file.write(text)
    mount("none", "/", "", REC | PRIVATE)


def mapped() -> bool:
    """Whether this process is root of a user namespace only."""
    with open("/proc/self/setgroups", encoding="utf-8") as file:
        return file.read().strip() == "deny"


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount."""
    done = _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode())
    _check(done, f"mount {target}")


def set_host_name(name: str) -> None:
    """Give the machine its name."""
    _check(_libc.sethostname(name.encode(), len(name.encode())), "sethostname")


def rename(words: list[str]) -> None:
    """Show other arguments of this process, as `ps` sees them; they must not be longer."""
    with open("/proc/self/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(") ")[2].split()
    start, end = int(fields[45]), int(fields[46])
    shown = b"".join(word.encode() + b"\0" for word in words)
    assert len(shown) <= end - start, words
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, shown, len(shown))


def drop_capability(number: int) -> None:
    """Let no program have a capability any more; one that the kernel lacks is no loss."""
    _libc.prctl(_CAPBSET_DROP, number, 0, 0, 0)


def die_with_parent(alive: int) -> None:
    """Be killed when the parent dies.

    Args:
        alive: a pipe whose other end only the parent holds, set not to block.
    """
    _check(_libc.prctl(_PDEATHSIG, 9, 0, 0, 0), "prctl")
    try:
        os.read(alive, 1)
    except BlockingIOError:
        return  # it is there, and its end will be heard of
    os._exit(137)


def execve(path: str, argv: list[str], variables: list[str]) -> None:
    """As `os.execve`, but with a variable twice if it is there twice.

    Raises:
        OSError: it cannot be executed.
    """
    words = [one.encode(errors="surrogateescape") for one in argv]
    pairs = [one.encode(errors="surrogateescape") for one in variables]
    _libc.execve(
        path.encode(errors="surrogateescape"),
        (ctypes.c_char_p * (len(words) + 1))(*words, None),
        (ctypes.c_char_p * (len(pairs) + 1))(*pairs, None),
    )
    _check(-1, f"exec {path}")


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
