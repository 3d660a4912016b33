"""Own namespaces for an instance, for an ordinary user and for root."""

from __future__ import annotations

import errno
import os
import socket
import struct
from fcntl import ioctl
from typing import Any, NoReturn

from claw_core.local import kernel
from claw_core.local.root import Root
from claw_core.local.setup import Setup

_OTHERS = (
    kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWCGROUP
)  # fmt: skip
_SIOCSIFFLAGS, _UP_AND_RUNNING = 0x8914, 0x1 | 0x40


def create(setup: Setup) -> list[int | None]:
    """Leave the host's namespaces; the next child is process 1 of the instance.

    Root keeps its power until the tree is built, so that it can show what only root can reach, and
    gets its user namespace in `populate`. An ordinary user needs one first.

    Returns:
        what `populate` needs: for each mount the user namespace that maps its owner, or None.
    """
    others = _OTHERS | (0 if setup.share_network else kernel.CLONE_NEWNET)
    if setup.become:
        # Before the new pid namespace: /proc still counts pids as the host does.
        identities = [_identity(mount, setup) for mount in setup.mounts]
        kernel.unshare(others)
        return identities
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER | others)
    _map_itself(uid, gid)
    return [None for _ in setup.mounts]


def populate(setup: Setup, identities: list[int | None]) -> None:
    """As process 1: build the tree, enter it, and end up as a user without any privilege."""
    os.setsid()
    if not setup.share_network:
        _loopback_up()
    socket.sethostname("claw")
    root = Root(setup, identities)
    root.build()
    for identity in identities:
        if identity is not None:
            os.close(identity)
    root.enter()
    if setup.become:
        become(setup)
        # The limit on processes counts per user namespace, and root's has no limit to speak of.
        kernel.unshare(kernel.CLONE_NEWUSER)
        _map_itself(setup.uid, setup.gid)


def become(setup: Setup) -> None:
    """Stop being root, for good."""
    os.setgroups([])
    os.setresgid(setup.gid, setup.gid, setup.gid)
    os.setresuid(setup.uid, setup.uid, setup.uid)
    # Changing users made the process undumpable, and /proc/self/uid_map unwritable with that.
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)


def _map_itself(uid: int, gid: int) -> None:
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")


def _identity(mount: dict[str, Any], setup: Setup) -> int | None:
    """Return a user namespace in which the owner of a mount's source is the sandbox's user."""
    uid, gid = mount["owner"]
    if (uid, gid) == (setup.uid, setup.gid):
        return None
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _hold_user_namespace(theirs)
    theirs.close()
    try:
        (failed,) = struct.unpack("i", ours.recv(4))
        if failed:
            raise OSError(failed, f"a user namespace for a mount: {os.strerror(failed)}")
        # On disk it is the owner, in the mount the sandbox's user.
        _write(f"/proc/{child}/uid_map", f"{uid} {setup.uid} 1")
        _write(f"/proc/{child}/gid_map", f"{gid} {setup.gid} 1")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        ours.close()
        os.waitpid(child, 0)


def _hold_user_namespace(told: socket.socket) -> NoReturn:
    """Stay in a new user namespace until the other end closes, as the death of its holder does."""
    try:
        kernel.unshare(kernel.CLONE_NEWUSER)
        told.send(struct.pack("i", 0))
        told.recv(1)
    except OSError as error:
        told.send(struct.pack("i", error.errno or errno.EIO))
    finally:
        os._exit(0)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _UP_AND_RUNNING))


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
