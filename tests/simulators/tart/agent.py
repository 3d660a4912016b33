"""The guest's agent: runs what `tart exec` asks for, as the user, without a login shell."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
import termios
from typing import Any, NoReturn

from simulators.tart import frames
from simulators.tart.disk import ACCOUNTS, IDENTITIES

LOG = "/tmp/tart-guest-agent.log"
PATH = "/bin:/usr/bin:/usr/sbin:/usr/local/bin:/opt/homebrew/bin"
CHUNK = 4096

DIALECTS = ("v0.4.0", "v0.9.0", "v0.11.0", "main")
"""What differs: v0.4.0 loses the last piece of the output; only main has exit codes for signals and
for commands that are not found, and kills more than the direct child."""


class Agent:
    """One connection, in a process of its own."""

    def __init__(self, connection: socket.socket, system: str, dialect: str, address: str) -> None:
        self.connection = connection
        self.dialect = dialect
        self.address = address
        self.account = ACCOUNTS[system]
        self.reader = frames.Reader()
        self.child = 0
        self.stdin = -1
        self.outputs: dict[int, bytes] = {}
        self.held: dict[int, bytes] = {}  # what is lost if nothing follows
        self.pending = b""

    def serve(self) -> NoReturn:
        user, uid, gid, home, shell = self.account
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with open(LOG, "a", encoding="utf-8") as log:
            os.fchmod(log.fileno(), 0o666)
        os.setgroups(IDENTITIES[uid])
        os.setgid(gid)
        os.setuid(uid)
        os.chdir(home)
        self.environment = {"HOME": home, "USER": user, "LOGNAME": user, "SHELL": shell}
        self.environment |= {"PATH": PATH, "TERM": "xterm-256color"}
        self._send(frames.HELLO)
        while data := self._receive():
            messages = iter(self.reader.feed(data))
            for kind, content in messages:
                if kind == frames.ADDRESS:
                    self._send(frames.ADDRESS, self.address.encode())
                elif kind == frames.COMMAND:
                    self._start(json.loads(content), list(messages))
        os._exit(0)

    def _receive(self) -> bytes:
        try:
            return self.connection.recv(65536)
        except ConnectionError:
            return b""

    def _send(self, kind: bytes, content: bytes = b"") -> None:
        """Send all of a message; who takes nothing holds the command up."""
        try:
            self.connection.sendall(frames.pack(kind, content))
        except ConnectionError:
            self._cancel()

    def _start(self, command: dict[str, Any], rest: list[tuple[bytes, bytes]]) -> NoReturn:
        """Start a command; `rest` has come with it."""
        argv = [command["name"], *command["args"]]
        with open(LOG, "a", encoding="utf-8") as log:
            print("executing", json.dumps(argv, separators=(",", ":")), file=log)
        if not self._found(argv[0]):
            if self.dialect == "main":
                self._send(frames.EXIT, b"125")
            else:
                text = f'exec: "{argv[0]}": executable file not found in $PATH'
                self._send(frames.FAILURE, f"unknown (2): {text}".encode())
            os._exit(0)
        self._spawn(argv, interactive=command["interactive"], terminal=command["tty"])
        self._relay(rest)

    @staticmethod
    def _found(name: str) -> bool:
        places = [""] if "/" in name else PATH.split(":")
        return any(os.access(os.path.join(place, name), os.X_OK) for place in places)

    def _spawn(self, argv: list[str], *, interactive: bool, terminal: list[int] | None) -> None:
        """Start the command; `terminal` is the size of the terminal that it gets."""
        if terminal:
            ours, theirs = os.openpty()
            size = struct.pack("HHHH", *terminal, 0, 0)
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
            inside = (theirs, theirs, theirs)
            self.outputs[ours] = frames.STDOUT
            self.stdin = os.dup(ours) if interactive else -1
        else:
            (out, out_write), (error, error_write) = os.pipe(), os.pipe()
            self.outputs = {out: frames.STDOUT, error: frames.STDERR}
            source = os.open("/dev/null", os.O_RDONLY)
            if interactive:
                source, self.stdin = os.pipe()
            inside = (source, out_write, error_write)
        self.child = os.fork()
        if self.child == 0:
            try:
                os.setsid()
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                for target, descriptor in enumerate(inside):
                    os.dup2(descriptor, target)
                if terminal:
                    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
                os.execvpe(argv[0], argv, self.environment)
            finally:
                os._exit(126)
        for descriptor in set(inside):
            os.close(descriptor)
        if self.stdin >= 0:
            os.set_blocking(self.stdin, False)

    def _relay(self, rest: list[tuple[bytes, bytes]]) -> NoReturn:
        """Carry bytes both ways until nobody holds the output any more, then tell the exit code."""
        self.pending = b"".join(content for kind, content in rest if kind == frames.STDIN)
        closing = (frames.STDIN, b"") in rest
        if self.stdin >= 0:
            self._input(closing=closing)
        while self.outputs:
            poll = select.poll()
            for descriptor in (self.connection.fileno(), *self.outputs):
                poll.register(descriptor, select.POLLIN)
            if self.stdin >= 0 and self.pending:
                poll.register(self.stdin, select.POLLOUT)
            for descriptor, _ in poll.poll():
                if descriptor == self.connection.fileno():
                    data = self._receive()
                    if not data:
                        self._cancel()
                    for kind, content in self.reader.feed(data):
                        if kind == frames.STDIN:
                            self.pending += content
                            closing = closing or not content
                elif descriptor in self.outputs:
                    self._output(descriptor)
            if self.stdin >= 0:
                self._input(closing=closing)
        _, status = os.waitpid(self.child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            code = 128 - code if self.dialect == "main" else -1
        self._send(frames.EXIT, str(code).encode())
        os._exit(0)

    def _output(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, CHUNK)
        except OSError:  # the other side of the terminal is closed
            data = b""
        if not data:
            del self.outputs[descriptor]
        elif self.dialect == "v0.4.0":
            self._send(self.outputs[descriptor], self.held.pop(descriptor, b""))
            self.held[descriptor] = data
        else:
            self._send(self.outputs[descriptor], data)

    def _input(self, *, closing: bool) -> None:
        """Feed the command as much as it takes now."""
        try:
            while self.pending:
                self.pending = self.pending[os.write(self.stdin, self.pending) :]
        except BlockingIOError:
            return
        except OSError:
            self.pending, closing = b"", True
        if closing:
            os.close(self.stdin)
            self.stdin = -1

    def _cancel(self) -> NoReturn:
        """The caller has gone: kill what it asked for."""
        if self.child:
            with contextlib.suppress(ProcessLookupError):
                if self.dialect == "main":
                    os.killpg(self.child, signal.SIGKILL)
                else:
                    os.kill(self.child, signal.SIGKILL)
        os._exit(0)
