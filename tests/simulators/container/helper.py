"""The helper of one container: the process that is its machine, and relays its streams.

It is one loop around `poll`. Like the real one it lets a guest that does not read its standard
input hold up the output of every process of the container, and keeps as much input as it is given.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time

from simulators.container import guest
from simulators.container.errors import Failure
from simulators.container.mac import Mac, started
from simulators.container.process import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Helper:
    """A container's machine.

    Args:
        mac: what it runs on.
        name: the container.
        listener: where requests come.
    """

    def __init__(self, mac: Mac, name: str, listener: socket.socket) -> None:
        self.mac, self.name, self.listener = mac, name, listener
        self.bundle = mac.path("containers", name)
        self.configuration = mac.load("containers", name, "config.json")
        self.root = ""
        self.processes: dict[str, Process] = {}
        self.connections: list[socket.socket] = []
        self.waiting: list[tuple[str, socket.socket]] = []
        self.deadlines: list[tuple[float, Callable[[], None]]] = []
        self.frozen = False

    def run(self) -> None:
        """Serve until the world ends, or somebody kills this process."""
        woken, waking = os.pipe()
        os.set_blocking(waking, False)
        os.set_blocking(woken, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        lifeline = self.mac.lifeline()
        while True:
            poll = select.poll()
            poll.register(lifeline, select.POLLHUP)
            poll.register(woken, select.POLLIN)
            poll.register(self.listener, select.POLLIN)
            handlers: dict[int, Callable[[], None]] = {self.listener.fileno(): self._accept}
            for connection in self.connections:
                poll.register(connection, select.POLLIN)
                handlers[connection.fileno()] = lambda one=connection: self._request(one)  # type: ignore[misc] # a default binds it
            if not self.frozen:
                self._register(poll, handlers)
            for descriptor, _ in poll.poll(self._milliseconds()):
                if descriptor == lifeline:
                    return
                if descriptor == woken:
                    os.read(woken, 1 << 12)
                elif descriptor in handlers:
                    handlers[descriptor]()
            if not self.frozen:
                self._reap()
                self._run_deadlines()

    def _register(self, poll: select.poll, handlers: dict[int, Callable[[], None]]) -> None:
        wedged = next((one for one in self.processes.values() if one.wedged), None)
        for process in self.processes.values():
            for descriptor, events, handler in process.interests(wedged=wedged):
                poll.register(descriptor, events)
                handlers[descriptor] = handler

    def _milliseconds(self) -> float | None:
        if not self.deadlines or self.frozen:
            return None
        return max(0.0, min(when for when, _ in self.deadlines) - time.monotonic()) * 1000 + 1

    def _run_deadlines(self) -> None:
        now = time.monotonic()
        due = [work for when, work in self.deadlines if when <= now]
        self.deadlines = [one for one in self.deadlines if one[0] > now]
        for work in due:
            work()

    def _accept(self) -> None:
        self.connections.append(self.listener.accept()[0])

    def _request(self, connection: socket.socket) -> None:
        """Read a request and answer it; what waits for an end keeps its connection."""
        self.connections.remove(connection)
        line, ancillary, _, _ = connection.recvmsg(1 << 20, 4096, socket.MSG_CMSG_CLOEXEC)
        if not line:
            return
        request = json.loads(line)
        given = [
            int.from_bytes(data[at : at + 4], "little")
            for _, _, data in ancillary
            for at in range(0, len(data), 4)
        ]
        mask = request.pop("descriptors")
        descriptors = [given.pop(0) if there else None for there in mask]
        if self.frozen:
            self.waiting.append(("", connection))  # for ever
            return
        try:
            handler = getattr(self, f"_do_{request.pop('do')}")
            self._answer(connection, handler(connection, descriptors, **request))
        except Failure as error:
            self._send(connection, {"failure": error.to_json()})

    def _answer(self, connection: socket.socket, value: Any) -> None:
        if value is not NotImplemented:
            self._send(connection, {"value": value})

    def _send(self, connection: socket.socket, value: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # whoever asked is gone
            connection.send(json.dumps(value).encode())
        connection.close()

    def _do_bootstrap(self, _: Any, descriptors: list[int | None]) -> None:
        if self.root:
            text = "container expected to be in created state, got: booted"
            raise Failure("invalidState", text)
        try:
            guest.separate(self.name, network=bool(self.configuration["networks"]))
            lower = self.mac.load("containers", self.name, "options.json")["lower"]
            self.root = guest.make_root(self.bundle, lower, self.configuration)
        except OSError as error:
            raise Failure("internalError", f"failed to bootstrap container: {error}") from None
        init = {**self.configuration["initProcess"], "useInit": self.configuration["useInit"]}
        log = os.open(f"{self.bundle}/log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        self.processes[self.name] = Process(init, descriptors, log)

    def _do_create(
        self, _: Any, descriptors: list[int | None], process: str, configuration: dict[str, Any]
    ) -> None:
        init = self.processes[self.name]
        if init.code is not None or init.pid is None:
            raise Failure("invalidState", "cannot exec: container is not running")
        self.processes[process] = Process(configuration, descriptors)

    def _do_start(self, _: Any, __: Any, process: str) -> int:
        one, init = self.processes[process], process == self.name
        one.configuration["capabilities"] = capabilities(self.configuration)
        try:
            pid = one.start(self.root, init=init)
        except (Failure, OSError) as error:
            one.close()
            one.code = 127
            raise Failure(*_nested(process, self.name, str(error))) from None
        if init:
            self.mac.save(
                {"pid": pid, "started": started(pid)}, "containers", self.name, "init.json"
            )
        return pid

    def _do_wait(self, connection: socket.socket, _: Any, process: str) -> Any:
        self.waiting.append((process, connection))
        self._finish()
        return NotImplemented

    def _do_kill(self, _: Any, __: Any, process: str, signal: int) -> None:
        self.processes[process].kill(signal)

    def _do_stop(self, connection: socket.socket, _: Any, signal: int, seconds: int) -> Any:
        init = self.processes.get(self.name)
        if init is None or init.pid is None:
            return None
        init.kill(signal)
        self.deadlines.append((time.monotonic() + seconds, lambda: init.kill(9)))
        self.waiting.append((self.name, connection))
        self._finish()
        return NotImplemented

    def _do_freeze(self, _: Any, __: Any) -> None:
        self.frozen = True
        init = self.processes.get(self.name)
        if init is None or init.pid is None:
            return
        namespace = os.stat(f"/proc/{init.pid}/ns/pid").st_ino
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):  # no process, or gone
                if entry.isdigit() and os.stat(f"/proc/{entry}/ns/pid").st_ino == namespace:
                    os.kill(int(entry), signal.SIGSTOP)

    def _reap(self) -> None:
        """Note who has ended; close what is left of its streams when that takes too long."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            for process in self.processes.values():
                if process.pid == pid:
                    process.code = code_of(status)
                    limit = time.monotonic() + self.mac.knob("drain_seconds")
                    self.deadlines.append((limit, process.close))
        self._finish()

    def _finish(self) -> None:
        """Answer those who wait for a process that has ended, and whose output has."""
        for process, connection in list(self.waiting):
            one = self.processes.get(process)
            if one is not None and one.code is not None and one.drained:
                self.waiting.remove((process, connection))
                self._send(connection, {"value": one.code})


def capabilities(configuration: dict[str, Any]) -> list[str] | None:
    """What is left to a container: all that is dropped goes first, then what is added comes."""
    drop = {one.upper().removeprefix("CAP_") for one in configuration["capDrop"]}
    add = {one.upper().removeprefix("CAP_") for one in configuration["capAdd"]}
    if not drop and not add:
        return None
    base = set() if "ALL" in drop else set(guest.DEFAULT)
    base |= set(guest.CAPABILITIES) if "ALL" in add else add
    return sorted(base - (drop - {"ALL"}))


def code_of(status: int) -> int:
    """The exit code that a client hears."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _nested(process: str, name: str, why: str) -> tuple[str, str, Failure]:
    """The long way in which a program that cannot be started is reported."""
    vmexec = f'startProcess: failed to start process: internalError: "vmexec error: {why}"'
    inner = f'failed to start process (cause: "internal error (13): {vmexec}")'
    cause = Failure("internalError", inner)
    return "internalError", f"failed to start process {process} in container {name}", cause


def main(root: str, argv: list[str]) -> None:
    """Be `container-runtime-linux start --root BUNDLE --uuid NAME`; requests come on 3."""
    name = argv[4]
    listener = socket.socket(fileno=3)
    listener.set_inheritable(False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    Helper(Mac(root), name, listener).run()
