"""The helper of one container: takes requests for its machine, and relays the streams.

It is one loop around `poll`. Like the real one it lets a guest that does not read its standard
input hold up the output of the container's other processes, and keeps all input that it is given.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket

from simulators.container.errors import Failure
from simulators.container.mac import Mac
from simulators.container.machine import WITHOUT_GUEST, Machine, Until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Helper:
    """The loop.

    Args:
        mac: what it runs on.
        name: the container.
        listener: where requests come.
    """

    def __init__(self, mac: Mac, name: str, listener: socket.socket) -> None:
        self.machine = Machine(mac, name)
        self._lifeline = mac.lifeline()
        self._listener = listener
        self._connections: list[socket.socket] = []
        self._waiting: list[tuple[str, socket.socket]] = []

    def run(self) -> None:
        """Serve until the world ends, or somebody kills this process."""
        woken, waking = os.pipe()
        os.set_blocking(waking, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        while True:
            poll = select.poll()
            poll.register(self._lifeline, select.POLLHUP)
            poll.register(woken, select.POLLIN)
            handlers = self._register(poll)
            for descriptor, _ in poll.poll(self.machine.milliseconds()):
                if descriptor == self._lifeline:
                    return
                if descriptor == woken:
                    os.read(woken, 1 << 12)
                elif descriptor in handlers:
                    handlers[descriptor]()
            if not self.machine.frozen:
                self.machine.tend()
                self._answer_those_who_wait()

    def _register(self, poll: select.poll) -> dict[int, Callable[[], None]]:
        poll.register(self._listener, select.POLLIN)
        handlers: dict[int, Callable[[], None]] = {self._listener.fileno(): self._accept}
        for connection in self._connections:
            poll.register(connection, select.POLLIN)
            handlers[connection.fileno()] = lambda one=connection: self._request(one)  # type: ignore[misc] # a default binds it
        if self.machine.frozen:
            return handlers
        processes = self.machine.processes.values()
        # The guest's only thread stands in a write to this one, so nothing comes out of the others.
        wedged = next((one for one in processes if one.wedged), None)
        for process in processes:
            output = wedged in {None, process}
            for descriptor, events, handler in process.interests(output=output):
                poll.register(descriptor, events)
                handlers[descriptor] = handler
        return handlers

    def _accept(self) -> None:
        self._connections.append(self._listener.accept()[0])

    def _request(self, connection: socket.socket) -> None:
        """Read a request, and answer it now or when the time has come."""
        self._connections.remove(connection)
        line, ancillary, _, _ = connection.recvmsg(1 << 20, 4096, socket.MSG_CMSG_CLOEXEC)
        if not line:
            return
        request = json.loads(line)
        what, mask = request.pop("do"), request.pop("descriptors")
        if self.machine.frozen and what not in WITHOUT_GUEST:
            self._waiting.append(("", connection))  # for ever
            return
        try:
            value = getattr(self.machine, what)(_given(ancillary, mask), **request)
        except Failure as error:
            self._send(connection, {"failure": error.to_json()})
            return
        if isinstance(value, Until):
            self._waiting.append((value.process, connection))
        else:
            self._send(connection, {"value": value})

    def _answer_those_who_wait(self) -> None:
        for process, connection in list(self._waiting):
            code = self.machine.ended(process)
            if code is not None:
                self._waiting.remove((process, connection))
                self._send(connection, {"value": code})

    def _send(self, connection: socket.socket, value: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # whoever asked is gone
            connection.send(json.dumps(value).encode())
        connection.close()


def _given(ancillary: list[tuple[int, int, bytes]], mask: list[bool]) -> list[int | None]:
    """The descriptors that came with a request; None where none was given."""
    numbers = iter(
        [
            int.from_bytes(data[at : at + 4], "little")
            for _, _, data in ancillary
            for at in range(0, len(data), 4)
        ]
    )
    return [next(numbers) if there else None for there in mask]


def main(root: str, argv: list[str]) -> None:
    """Be `container-runtime-linux start --root BUNDLE --uuid NAME`; requests come on 3."""
    listener = socket.socket(fileno=3)
    listener.set_inheritable(False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    Helper(Mac(root), argv[4], listener).run()
