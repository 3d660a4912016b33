"""The first process of a guest: it reaps, answers port 22, and talks to its machine."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from typing import Any, NoReturn

from simulators.tart.agent import Agent

MACHINE = "/run/machine"
REQUESTS = f"{MACHINE}/requests"
SSHD = ("/usr/sbin/sshd", "-i", "-f", "/etc/ssh/sshd_config", "-E", "/run/sshd.log")
ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}


class Init:
    """Serves until its machine lets go of the channel.

    The settings: `address` and `port` of the SSH server, `ssh` and `agent` (seconds until each is
    there, or None for never), and `faults` of SSH by kind.
    """

    def __init__(self, system: str, channel: socket.socket, settings: dict[str, Any]) -> None:
        self.system = system
        self.channel = channel
        self.settings = settings
        self.faults: dict[str, dict[str, Any]] = settings["faults"]
        self.began = time.monotonic()
        self.connections = 0
        self.listener: socket.socket | None = None
        self.hung: list[socket.socket] = []
        self.waiting: list[str] = []
        self.sessions: list[tuple[float, int]] = []  # when each is to be cut, and its process

    def serve(self) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
        os.makedirs("/run/sshd", 0o755)
        os.mkdir(MACHINE)
        os.chmod(MACHINE, 0o1777)
        os.mkfifo(REQUESTS)
        os.chmod(REQUESTS, 0o622)
        requests = os.open(REQUESTS, os.O_RDWR | os.O_CLOEXEC)
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        poll.register(requests, select.POLLIN)
        self.channel.send(b"booted")
        while True:
            if self.listener is None and self._ssh_due() <= 0:
                self.listener = self._listen()
                poll.register(self.listener, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll(self._wait())}
            self._cut()
            if self.channel.fileno() in ready and not self._message():
                return
            if requests in ready:
                for line in os.read(requests, 4096).decode().splitlines():
                    self._request(*line.split())
            if self.listener is not None and self.listener.fileno() in ready:
                self._accept(self.listener)

    def _wait(self) -> float | None:
        """Milliseconds until something is due."""
        due = [] if self.listener else [self._ssh_due()]
        due += [when - time.monotonic() for when, _ in self.sessions]
        due = [max(0.001, seconds) for seconds in due if seconds != float("inf")]
        return min(due) * 1000 if due else None

    def _cut(self) -> None:
        """End connections that have lasted long enough, but not what was started through them."""
        while self.sessions and self.sessions[0][0] <= time.monotonic():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.sessions.pop(0)[1], signal.SIGKILL)

    def _ssh_due(self) -> float:
        """Seconds until the SSH server is there."""
        delay = self.settings["ssh"]
        if delay is not None and (refused := self.faults.get("refused")):
            delay = refused.get("seconds", float("inf"))
        return float("inf") if delay is None else self.began + delay - time.monotonic()

    def _listen(self) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.settings["address"], self.settings["port"]))
        listener.listen(128)
        return listener

    def _message(self) -> bool:
        """Take a message of the machine; False when that has gone."""
        message, descriptors, _, _ = socket.recv_fds(self.channel, 64, 1)
        if message == b"connect":
            with socket.socket(fileno=descriptors[0]) as connection:
                self._agent(connection)
        elif message:
            self._reply(self.waiting.pop(0), message)
        return bool(message)

    def _request(self, what: str, reply: str) -> None:
        """Pass on what a command of the guest asks for."""
        self.waiting.append(reply)
        self.channel.send(what.encode())

    def _reply(self, path: str, message: bytes) -> None:
        """Let the command go on; to open a pipe waits for its other end."""
        if self._child():
            return
        with open(path, "w", encoding="utf-8") as pipe:
            print(message.decode(), file=pipe)
        os._exit(0)

    def _child(self) -> bool:
        """Fork; the child has no part in the talk with the machine."""
        if os.fork():
            return True
        self.channel.close()
        return False

    def _agent(self, connection: socket.socket) -> None:
        """Serve a caller of the agent, if that is there."""
        delay = self.settings["agent"]
        if delay is None or time.monotonic() < self.began + delay or self._child():
            return
        try:
            dialect, address = self.settings["dialect"], self.settings["address"]
            Agent(connection, self.system, dialect, address).serve()
        except BaseException:  # noqa: BLE001 # the fork must never return to its caller
            traceback.print_exc()
        finally:
            os._exit(1)

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        self.connections += 1
        uptime = time.monotonic() - self.began

        def now(kind: str) -> bool:
            """Whether a fault is on, which may end at some uptime or after some connections."""
            fault = self.faults.get(kind)
            if fault is None or uptime >= fault.get("seconds", float("inf")):
                return False
            return self.connections <= int(fault.get("connections", self.connections))

        if now("hang"):
            self.hung.append(connection)
            return
        if now("reset"):
            option = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            connection.close()
            return
        extra = ["-o", "DenyUsers=admin"] if now("denied") else []
        if "host key" in self.faults and self.connections % 2 == 0:
            extra += ["-h", f"{MACHINE}/other_key"]
        pid = os.fork()
        if pid == 0:
            self._session(connection, extra)
        if cut := self.faults.get("cut"):
            self.sessions.append((time.monotonic() + cut.get("seconds", 1), pid))
        connection.close()

    def _session(self, connection: socket.socket, extra: list[str]) -> NoReturn:
        """Become the SSH server of one connection, which is how macOS starts it."""
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            if self.system == "darwin" and not self._has_keys():
                self._run("ssh-keygen", "-A")
            if "-h" in extra and not os.path.exists(extra[-1]):
                self._run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", extra[-1])
            for target in (0, 1):
                os.dup2(connection.fileno(), target)
            os.execve(SSHD[0], [*SSHD, *extra], ENVIRONMENT)
        except OSError as error:
            print(error, file=sys.stderr, flush=True)
        finally:
            os._exit(1)

    @staticmethod
    def _has_keys() -> bool:
        return any(name.startswith("ssh_host_") for name in os.listdir("/etc/ssh"))

    @staticmethod
    def _run(*argv: str) -> None:
        os.waitpid(os.posix_spawnp(argv[0], argv, ENVIRONMENT), 0)
