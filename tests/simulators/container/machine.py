"""The machine of one container: what its helper can do with it."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from simulators.container import linux, program, rootfs
from simulators.container.errors import Failure
from simulators.container.mac import Mac, started
from simulators.container.process import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

WITHOUT_GUEST = ("create", "wait", "freeze")
"""Requests for which the guest itself is not needed, so they are taken when it is frozen, too."""


class Until:
    """The answer that comes when a process has ended."""

    def __init__(self, process: str) -> None:
        self.process = process


class Machine:
    """A container's machine; each public method that `helper` calls by name is a request.

    Args:
        mac: what it runs on.
        name: the container.
    """

    def __init__(self, mac: Mac, name: str) -> None:
        self.mac, self.name = mac, name
        self.bundle = mac.path("containers", name)
        self.configuration = mac.load("containers", name, "config.json")
        self.root = ""
        self.processes: dict[str, Process] = {}
        self.frozen = False
        self._later: list[tuple[float, Callable[[], None]]] = []

    @property
    def init(self) -> Process | None:
        """The init process, once it has been started."""
        init = self.processes.get(self.name)
        return None if init is None or init.pid is None else init

    def bootstrap(self, descriptors: list[int | None]) -> None:
        """Boot; the init process is not started yet."""
        if self.root:
            text = "container expected to be in created state, got: booted"
            raise Failure("invalidState", text)
        lower = self.mac.load("containers", self.name, "options.json")["lower"]
        try:
            separate(self.name, network=bool(self.configuration["networks"]))
            self.root = rootfs.mount_root(self.bundle, lower, self.configuration)
        except OSError as error:
            raise Failure("internalError", f"failed to bootstrap container: {error}") from None
        init = {**self.configuration["initProcess"], "useInit": self.configuration["useInit"]}
        log = os.open(f"{self.bundle}/log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        self.processes[self.name] = Process(init, descriptors, log)

    def create(
        self, descriptors: list[int | None], process: str, configuration: dict[str, Any]
    ) -> None:
        """Get to know a process that shall be started."""
        if self.init is None or self.init.code is not None:
            raise Failure("invalidState", "cannot exec: container is not running")
        self.processes[process] = Process(configuration, descriptors)

    def start(self, _: Any, process: str) -> int:
        """Start a process."""
        one, init = self.processes[process], process == self.name
        one.configuration["capabilities"] = program.capabilities(self.configuration)
        try:
            pid = one.start(self.root, init=init)
        except (Failure, OSError) as error:
            one.close()
            one.code = 127
            raise _nested(process, self.name, str(error)) from None
        if init:
            value = {"pid": pid, "started": started(pid)}
            self.mac.save(value, "containers", self.name, "init.json")
        return pid

    def wait(self, _: Any, process: str) -> Until:
        """Answer with the exit code of a process when it has ended."""
        return Until(process)

    def kill(self, _: Any, process: str, signal: int) -> Until | None:
        """Send a process a signal; the end of init is waited for where it is sure to come."""
        if process in self.processes:
            self.processes[process].kill(signal)
        sure = signal == 9 and process == self.name and self.mac.version >= (1, 0)
        return Until(process) if sure and self.init else None

    def stop(self, _: Any, signal: int, seconds: int) -> Until | None:
        """Send init a signal, and after some seconds kill it."""
        init = self.init
        if init is None:
            return None
        init.kill(signal)
        self._later.append((time.monotonic() + seconds, lambda: init.kill(9)))
        return Until(self.name)

    def freeze(self, _: Any) -> None:
        """Stand still for good, as a guest whose kernel panics does."""
        self.frozen = True
        if self.init is None:
            return
        namespace = os.stat(f"/proc/{self.init.pid}/ns/pid").st_ino
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):  # no process, or gone
                if entry.isdigit() and os.stat(f"/proc/{entry}/ns/pid").st_ino == namespace:
                    os.kill(int(entry), signal.SIGSTOP)

    def milliseconds(self) -> float | None:
        """How long there is nothing to do by itself."""
        if not self._later or self.frozen:
            return None
        return max(0.0, min(when for when, _ in self._later) - time.monotonic()) * 1000 + 1

    def tend(self) -> None:
        """Note who has ended, and do what is due."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            for process in self.processes.values():
                if process.pid == pid:
                    code = os.waitstatus_to_exitcode(status)
                    process.code = code if code >= 0 else 128 - code
                    # What holds its output open has this long, and is then let alone.
                    limit = time.monotonic() + self.mac.knob("drain_seconds")
                    self._later.append((limit, process.close))
        now = time.monotonic()
        due = [work for when, work in self._later if when <= now]
        self._later = [one for one in self._later if one[0] > now]
        for work in due:
            work()

    def ended(self, process: str) -> int | None:
        """The exit code of a process that has ended, and whose output has."""
        one = self.processes.get(process)
        return None if one is None or not one.drained else one.code


def separate(name: str, *, network: bool) -> None:
    """Leave the host's namespaces; the next child of this process is PID 1 of the guest.

    Args:
        name: the guest's host name.
        network: whether it keeps the host's network.
    """
    flags = linux.NEWNS | linux.NEWUTS | linux.NEWIPC | linux.NEWPID
    linux.unshare(flags | (0 if network else linux.NEWNET))
    linux.set_host_name(name)


def _nested(process: str, name: str, why: str) -> Failure:
    """The long way in which a program that cannot be started is reported."""
    vmexec = f'startProcess: failed to start process: internalError: "vmexec error: {why}"'
    inner = f'failed to start process (cause: "internal error (13): {vmexec}")'
    text = f"failed to start process {process} in container {name}"
    return Failure("internalError", text, Failure("internalError", inner))
