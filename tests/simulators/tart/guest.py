"""The guest of a machine: a process tree in namespaces of its own that dies with `tart run`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import traceback
from typing import Any, NoReturn

from simulators.tart import disk, init, locks, namespaces
from simulators.tart.machine import CONTENT
from simulators.tart.share import AUTOMOUNT, Share

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


class Guest:
    """A guest as its machine sees it: its first process, and a channel to that.

    The guest writes to a copy of the disk. What it has not told its machine to `flush` is lost
    when it is killed, as what a real guest holds in its cache.
    """

    def __init__(
        self,
        directory: str,
        machine: str,
        system: str,
        shares: list[Share],
        settings: dict[str, Any],
        slot: int,
    ) -> None:
        """
        Args:
            directory: a place of its own on the host.
            machine: the directory of the machine.
            settings: what `init.Init` takes.
            slot: a descriptor that the guest holds for as long as it lives, or -1.
        """
        self.directory = directory
        self.log = os.path.join(directory, "log")
        # The machine keeps its directory, whatever becomes of the name.
        self._folder = os.open(machine, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._home = f"/proc/{os.getpid()}/fd/{self._folder}"
        self.system = system
        self.shares = shares
        self.settings = settings
        self.slot = slot
        self.pid = 0
        self.channel: socket.socket

    def start(self) -> None:
        """Start the first process; how far it gets is told on the channel."""
        for name in ("work", "root"):
            os.makedirs(os.path.join(self.directory, name))
        disk.copy(os.path.join(self._home, CONTENT), os.path.join(self.directory, "live"))
        # What belongs to who runs the machine belongs to the user of the guest.
        _, user, group, _, _ = disk.ACCOUNTS[self.system]
        self.owners = namespaces.swapped(user, group) if self.shares else -1
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        namespaces.unshare(namespaces.NEW_PIDS)
        self.pid = os.fork()
        if self.pid == 0:
            self.channel.close()
            self._boot(theirs)
        namespaces.enter(own, namespaces.NEW_PIDS)
        os.close(own)
        if self.owners >= 0:
            os.close(self.owners)
        theirs.close()

    def flush(self) -> None:
        """Put on the disk what the guest has written; nowhere, if the machine was deleted."""
        if os.fstat(self._folder).st_nlink == 0:
            return
        content, new = (os.path.join(self._home, name) for name in (CONTENT, "disk.partial"))
        shutil.rmtree(new, ignore_errors=True)
        disk.copy(os.path.join(self.directory, "live"), new)
        with locks.directory(os.path.dirname(self.directory)):  # against a clone of this machine
            namespaces.exchange(new, content)
            shutil.rmtree(new)

    def kill(self) -> None:
        """End the whole tree, and wait until it has ended."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _boot(self, channel: socket.socket) -> NoReturn:
        code = 70
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            namespaces.die_with_parent()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            os.setsid()
            nothing = os.open("/dev/null", os.O_RDONLY)
            for source, target in ((nothing, 0), (log, 1), (log, 2)):
                os.dup2(source, target)
            kept = {0, 1, 2, log, channel.fileno(), self.slot, self.owners}
            for descriptor in (int(name) for name in os.listdir("/proc/self/fd")):
                if descriptor not in kept:
                    with contextlib.suppress(OSError):  # the one that has just listed them
                        os.close(descriptor)
            self._mount()
            init.Init(self.system, channel, self.settings).serve()
            code = 0
        except BaseException:  # noqa: BLE001 # the fork must never return to its caller
            os.write(log, traceback.format_exc().encode())
        os._exit(code)

    def _mount(self) -> None:
        """Make the guest's view of the file system, and leave that of the host."""
        root = os.path.join(self.directory, "root")
        live, work = (os.path.join(self.directory, name) for name in ("live", "work"))
        namespaces.unshare(namespaces.NEW_MOUNTS | namespaces.NEW_HOSTNAME | namespaces.NEW_IPC)
        socket.sethostname("admins-Virtual-Machine")
        mount = namespaces.mount
        mount("none", "/", flags=namespaces.RECURSIVE | namespaces.PRIVATE)
        layers = f"lowerdir=/,upperdir={live},workdir={work}"
        mount("overlay", root, "overlay", 0, f"{layers},index=off,metacopy=off,redirect_dir=off")
        safe = namespaces.NO_SUID | namespaces.NO_DEVICES
        mount("proc", f"{root}/proc", "proc", safe | namespaces.NO_EXEC)
        mount("tmpfs", f"{root}/run", "tmpfs", safe, "mode=755")
        mount("tmpfs", f"{root}/dev", "tmpfs", namespaces.NO_SUID, "mode=755")
        for name in DEVICES:
            os.close(os.open(f"{root}/dev/{name}", os.O_CREAT | os.O_WRONLY))
            namespaces.bind(f"/dev/{name}", f"{root}/dev/{name}")
        os.mkdir(f"{root}/dev/pts")
        mount("devpts", f"{root}/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620,gid=5")
        os.mkdir(f"{root}/dev/shm")
        os.chmod(f"{root}/dev/shm", 0o1777)
        for link, target in (
            ("ptmx", "pts/ptmx"),
            ("fd", "/proc/self/fd"),
            ("stdin", "fd/0"),
            ("stdout", "fd/1"),
            ("stderr", "fd/2"),
        ):
            os.symlink(target, f"{root}/dev/{link}")
        for share in self.shares:
            self._share(root, share)
        namespaces.change_root(root)

    def _share(self, root: str, share: Share) -> None:
        """Show a directory of the host; only a macOS guest mounts the default tag by itself."""
        place = os.path.join(root, "run/virtiofs", share.tag, share.name).rstrip("/")
        places = [place]
        if self.system == "darwin" and share.tag == AUTOMOUNT:
            places.append(os.path.join(root, "Volumes/My Shared Files", share.name).rstrip("/"))
        for path in places:
            os.makedirs(path, exist_ok=True)
            namespaces.share(share.path, path, self.owners, read_only=share.read_only)
