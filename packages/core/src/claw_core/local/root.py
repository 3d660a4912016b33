"""The file tree of a sandbox: built from an allow-list on a tmpfs, and entered for good.

Everything is opened before anything is covered, so that a symlink swapped in meanwhile, or a source
below a directory that is about to be covered, changes nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from typing import Any, Final

from claw_core.local import kernel
from claw_core.local.setup import HOME, SCRATCH, Failure, Setup

SYSTEM: Final = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix/store", "gnu/store")
ETC: Final = (
    "alternatives", "bash.bashrc", "ca-certificates", "ca-certificates.conf", "debian_version",
    "fonts", "gai.conf", "host.conf", "hosts", "inputrc", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "localtime", "magic", "mailcap", "manpath.config", "mime.types", "networks",
    "nsswitch.conf", "os-release", "pki", "profile", "protocols", "python3", "redhat-release",
    "resolv.conf", "rpc", "services", "shells", "ssl", "terminfo", "timezone",
)  # fmt: skip
"""What programs look up in /etc; nothing about this host's users, services or secrets."""
DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
READ_ONLY_PROC: Final = ("bus", "fs", "irq", "sys", "sysrq-trigger")
MASKED_PROC: Final = (
    "acpi", "asound", "interrupts", "kcore", "keys", "kallsyms", "kmsg", "latency_stats", "modules",
    "sched_debug", "scsi", "timer_list", "timer_stats",
)  # fmt: skip
PLACES: Final = ("/tmp", "/mnt", "/usr")  # noqa: S108 - only covered, in a mount namespace of our own
"""Directories of which one exists everywhere; it is covered while the tree is built."""

_READ_ONLY: Final = kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | kernel.ATTR_NODEV
_WRITABLE: Final = kernel.ATTR_NOSUID | kernel.ATTR_NODEV


class Root:
    """One sandbox's tree; `build` it, then `enter` it.

    Args:
        setup: what was asked for.
        identities: for each mount, a user namespace whose map makes its owner the sandbox's user,
            or None where the file owner is that user anyway.
    """

    def __init__(self, setup: Setup, identities: Iterable[int | None]) -> None:
        self._setup = setup
        self._identities = tuple(identities)
        self._top = -1

    def build(self) -> None:
        """Make the whole tree and go there; the old one is still around it.

        Raises:
            Failure: a mount cannot be had as it was asked for.
            OSError: the kernel refuses what every sandbox needs.
        """
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        system = self._system()
        mounts = [self._source(mount) for mount in self._setup.mounts]
        devices = [(f"/dev/{name}", _copy(f"/dev/{name}")) for name in DEVICES]
        place = next(path for path in PLACES if os.path.isdir(path))
        size = f",size={self._setup.memory}" if self._setup.memory else ""
        flags = kernel.MS_NOSUID | kernel.MS_NODEV
        kernel.mount("claw", place, "tmpfs", flags, f"mode=0755{size}")
        os.chdir(place)
        self._top = os.open(".", os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY)
        for target, link in self._links():
            os.symlink(link, f".{target}")
        self._etc()
        for path in SCRATCH:
            self._directory(path, 0o700 if path == HOME else 0o1777)
            os.chown(f".{path}", self._setup.uid, self._setup.gid)
            self._attach(_copy(f".{path}", recursive=False), path, _WRITABLE, recursive=False)
        # After the writable places: the interpreter may live below one of them.
        for target, source in system:
            self._attach(source, target, _READ_ONLY)
        self._dev(devices)
        self._proc()
        for mount, source, identity in zip(
            self._setup.mounts, mounts, self._identities, strict=True
        ):
            self._user_mount(mount, source, identity)

    def enter(self) -> None:
        """Make the tree the only one there is, its own files read-only."""
        top = os.open(".", os.O_PATH | os.O_CLOEXEC)
        kernel.set_attributes(top, _READ_ONLY, recursive=False)
        os.close(top)
        os.close(self._top)
        kernel.leave_old_root()

    def _links(self) -> list[tuple[str, str]]:
        """Where the host has a link (merged /usr), so has the sandbox."""
        return [
            (f"/{name}", os.readlink(f"/{name}")) for name in SYSTEM if os.path.islink(f"/{name}")
        ]

    def _system(self) -> list[tuple[str, int]]:
        """What is shown of the host's system, and the interpreter wherever it lives."""
        found = []
        for name in SYSTEM:
            if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}"):
                found.append((f"/{name}", _copy(f"/{name}")))
        for name in ETC:
            path = os.path.realpath(f"/etc/{name}")
            if os.path.exists(path):
                found.append((f"/etc/{name}", _copy(path)))
        for prefix in self._setup.prefixes:
            found.append((prefix, _copy(os.path.realpath(prefix))))
        return found

    def _etc(self) -> None:
        os.makedirs("etc", exist_ok=True)
        uid, gid = self._setup.uid, self._setup.gid
        _write(
            "etc/passwd", f"root:x:0:0:root:/:/bin/sh\nagent:x:{uid}:{gid}:agent:{HOME}:/bin/sh\n"
        )
        _write("etc/group", f"root:x:0:\nagent:x:{gid}:\n")
        os.symlink("/proc/self/mounts", "etc/mtab")

    def _dev(self, devices: list[tuple[str, int]]) -> None:
        for target, source in devices:
            self._file(target)
            self._attach(source, target, kernel.ATTR_NOSUID | kernel.ATTR_NOEXEC)
        os.makedirs("dev/pts")
        flags = kernel.MS_NOSUID | kernel.MS_NOEXEC
        kernel.mount("devpts", "dev/pts", "devpts", flags, "newinstance,ptmxmode=0666,mode=620")
        os.symlink("pts/ptmx", "dev/ptmx")
        os.symlink("/proc/self/fd", "dev/fd")
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            os.symlink(f"/proc/self/fd/{number}", f"dev/{name}")

    def _proc(self) -> None:
        os.makedirs("proc")
        flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        kernel.mount("proc", "proc", "proc", flags)
        for name in READ_ONLY_PROC:
            if os.path.exists(f"proc/{name}"):
                tree = _copy(f"proc/{name}", recursive=False)
                self._attach(tree, f"/proc/{name}", _READ_ONLY, recursive=False)
        self._directory("/run/.empty", 0o555)
        for name in MASKED_PROC:
            if os.path.exists(f"proc/{name}"):
                mask = "run/.empty" if os.path.isdir(f"proc/{name}") else "dev/null"
                tree = _copy(mask, recursive=False)
                self._attach(tree, f"/proc/{name}", _READ_ONLY, recursive=False)

    def _source(self, mount: dict[str, Any]) -> int:
        descriptor = open_source(mount["source"])
        try:
            return kernel.clone_tree(descriptor)
        finally:
            os.close(descriptor)

    def _user_mount(self, mount: dict[str, Any], source: int, identity: int | None) -> None:
        target, writable = mount["target"], mount["writable"]
        if stat.S_ISDIR(os.fstat(source).st_mode):
            self._directory(target, 0o755, for_mount=True)
        else:
            self._file(target, for_mount=True)
        needed = writable or not os.fstat(source).st_mode & 0o004
        if identity is not None and not _map_owner(source, identity) and needed:
            raise Failure(
                f"cannot give the sandbox's user access to {mount['source']!r}: its file system "
                "has no idmapped mounts",
                "run claw as the owner of that directory instead of root, or move it to a file "
                "system that has them (ext4, xfs, btrfs, tmpfs)",
            )
        try:
            self._attach(source, target, _WRITABLE if writable else _READ_ONLY)
        except OSError as error:
            raise _no_place(target) from error

    def _attach(
        self,
        tree: int,
        target: str,
        attributes: int,
        *,
        recursive: bool = True,
    ) -> None:
        """Put a detached mount at a target, which is created where missing."""
        if not os.path.lexists(f".{target}"):
            if stat.S_ISDIR(os.fstat(tree).st_mode):
                self._directory(target, 0o755)
            else:
                self._file(target)
        try:
            kernel.set_attributes(tree, attributes, recursive=recursive)
            point = self._walk(target)
            try:
                kernel.attach_tree(tree, point)
            finally:
                os.close(point)
        finally:
            os.close(tree)

    def _walk(self, target: str) -> int:
        """Open a path of the new tree without following any link."""
        current = os.dup(self._top)
        for part in _parts(target):
            following = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = following
        return current

    def _directory(self, target: str, mode: int, *, for_mount: bool = False) -> None:
        """Create a directory and its parents; never inside something that belongs to the user."""
        current = os.dup(self._top)
        own = os.fstat(current).st_dev
        try:
            for part in _parts(target):
                try:
                    following = os.open(
                        part,
                        os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC,
                        dir_fd=current,
                    )
                except FileNotFoundError:
                    if os.fstat(current).st_dev != own:
                        raise _no_place(target) from None
                    os.mkdir(part, 0o755, dir_fd=current)
                    following = os.open(
                        part,
                        os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC,
                        dir_fd=current,
                    )
                except NotADirectoryError:
                    raise _no_place(target) from None
                os.close(current)
                current = following
            if not for_mount and mode != 0o755:
                os.chmod(f"/proc/self/fd/{current}", mode)
        finally:
            os.close(current)

    def _file(self, target: str, *, for_mount: bool = False) -> None:
        parent, _, name = target.rpartition("/")
        self._directory(parent, 0o755, for_mount=for_mount)
        directory = self._walk(parent)
        try:
            try:
                os.close(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory))
            except FileNotFoundError:
                if os.fstat(directory).st_dev != os.fstat(self._top).st_dev:
                    raise _no_place(target) from None
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=directory))
        finally:
            os.close(directory)


def open_source(path: str) -> int:
    """Open what a mount shows, as it was checked.

    Raises:
        Failure: it is not there any more, or is reached through a symlink by now.
    """
    try:
        return kernel.open_without_symlinks(path)
    except OSError as error:
        why = error.strerror
        if error.errno == errno.ELOOP:
            why = "a part of the path has become a symlink since it was checked"
        raise Failure(
            f"cannot mount {path!r}: {why}", "see that the path stays as it is"
        ) from error


def _parts(target: str) -> list[str]:
    parts = [part for part in target.split("/") if part not in {"", "."}]
    if ".." in parts or not parts:
        raise _no_place(target)
    return parts


def _map_owner(tree: int, identity: int) -> bool:
    """Make the owner of a mount's files the sandbox's user; whether the file system can that."""
    try:
        kernel.set_attributes(tree, kernel.ATTR_IDMAP, user_namespace=identity)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def _no_place(target: str) -> Failure:
    return Failure(
        f"cannot mount at {target!r}: there is no such place in the tree of the sandbox",
        "a place inside another mount must exist there; otherwise choose one below /mnt",
    )


def _copy(path: str, *, recursive: bool = True) -> int:
    """A detached copy of the mount at a path, unaffected by what is mounted over it later."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return kernel.clone_tree(descriptor, recursive=recursive)
    finally:
        os.close(descriptor)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
