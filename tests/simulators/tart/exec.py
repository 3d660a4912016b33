"""`tart exec`: a command in the guest, through `control.sock` and the guest's agent."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import termios
import time
from typing import Any

from simulators.tart import errors, faults, frames
from simulators.tart.arguments import FLAG, parse
from simulators.tart.errors import Failure
from simulators.tart.library import Library
from simulators.tart.machine import SOCKET, Machine
from simulators.tart.settings import Settings

LONGEST = 103
"""Bytes in the path of a socket on macOS."""


def exec_command(settings: Settings, argv: list[str]) -> int:
    arguments = parse(argv, {"-i": FLAG, "-t": FLAG}, ["name", "command..."], verbatim=True)
    name, *command = arguments.names
    hit = faults.strike(settings, "exec", name)
    library = Library(settings.home)
    library.collect(noise=settings["garbage_noise"])
    machine = library.find(name)
    if not machine.runner():
        raise errors.not_running(name)
    connection = connect(settings, machine)
    terminal = None
    if arguments.flag("-t"):
        if not os.isatty(1):
            signal.signal(signal.SIGTRAP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTRAP)
        rows_and_columns = fcntl.ioctl(1, termios.TIOCGWINSZ, bytes(8))
        terminal = list(struct.unpack("HHHH", rows_and_columns)[:2])
    asked = {
        "name": command[0],
        "args": command[1:],
        "interactive": arguments.flag("-i"),
        "tty": terminal,
    }
    connection.sendall(frames.pack_json(frames.COMMAND, asked))
    return Stream(connection, hit, interactive=arguments.flag("-i")).relay()


def connect(settings: Settings, machine: Machine) -> socket.socket:
    """Connect to the agent, for as long as the caller has patience.

    Raises:
        Failure: there is none.
    """
    deadline = time.monotonic() + settings["exec_patience"]
    while (left := deadline - time.monotonic()) > 0:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(left)
        with contextlib.suppress(OSError):
            _dial(settings, machine, connection)
            if connection.recv(frames.HEAD.size) == frames.pack(frames.HELLO):
                connection.settimeout(None)
                return connection
        connection.close()
        time.sleep(min(0.1, left))
    raise Failure(
        "Failed to connect to the VM using its control socket: The operation couldn’t be "
        "completed. (GRPC.GRPCConnectionPoolError error 1.), is the Tart Guest Agent running?"
    )


def _dial(settings: Settings, machine: Machine, connection: socket.socket) -> None:
    """Connect by a name without a directory, since there is that, otherwise by the whole path."""
    if settings.version >= (2, 30, 6):
        back = os.getcwd()
        os.chdir(machine.path)
        try:
            connection.connect(SOCKET)
        finally:
            os.chdir(back)
    elif len(os.fsencode(machine.file(SOCKET))) <= LONGEST:
        connection.connect(machine.file(SOCKET))


class Stream:
    """The bytes of one command; standard input is buffered without a limit."""

    def __init__(
        self, connection: socket.socket, hit: dict[str, dict[str, Any]], *, interactive: bool
    ) -> None:
        self.connection = connection
        self.reader = frames.Reader()
        self.hit = hit
        self.reading = interactive
        self.outgoing = b""
        self.shown = 0

    def relay(self) -> int:
        """Carry until the command ends.

        Raises:
            Failure: the connection ended first.
        """
        with self._raw():
            while True:
                wanted = select.POLLIN | (select.POLLOUT if self.outgoing else 0)
                poll = select.poll()
                poll.register(self.connection, wanted)
                if self.reading:
                    poll.register(0, select.POLLIN)
                for descriptor, event in poll.poll():
                    if descriptor == 0:
                        self._read()
                    elif event & select.POLLOUT:
                        self._write()
                    elif (code := self._receive()) is not None:
                        return code

    @contextlib.contextmanager
    def _raw(self) -> Any:
        """A terminal on standard input is the guest's for so long."""
        if not (self.reading and os.isatty(0)):
            yield
            return
        import tty  # rarely needed

        before = termios.tcgetattr(0)
        tty.setraw(0)
        try:
            yield
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)

    def _read(self) -> None:
        data = os.read(0, 65536)
        self.outgoing += frames.pack(frames.STDIN, data)
        self.reading = bool(data)

    def _write(self) -> None:
        try:
            sent = self.connection.send(self.outgoing, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            self.outgoing = self.outgoing[sent:]
        except ConnectionError:  # the command has ended; how is still to be read
            self.outgoing, self.reading = b"", False

    def _receive(self) -> int | None:
        try:
            data = self.connection.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            raise self._dropped()
        for kind, content in self.reader.feed(data):
            if kind == frames.EXIT:
                if "no exit" in self.hit:
                    raise self._dropped()
                return int(content) & 0xFF
            if kind == frames.FAILURE:
                raise Failure(content.decode(), prefix=True)
            self._show(kind, content)
        return None

    def _show(self, kind: bytes, content: bytes) -> None:
        if "drop" in self.hit:
            left = int(self.hit["drop"].get("bytes", 0)) - self.shown
            content, cut = content[: max(0, left)], left <= len(content)
        else:
            cut = False
        file = sys.stdout if kind == frames.STDOUT else sys.stderr
        file.buffer.write(content)
        file.buffer.flush()
        self.shown += len(content)
        if cut:
            raise self._dropped()

    @staticmethod
    def _dropped() -> Failure:
        return Failure("unavailable (14): Transport became inactive", prefix=True)
