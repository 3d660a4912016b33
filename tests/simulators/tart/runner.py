"""The life of a running machine: its signals, its guest, and what is due when."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from simulators.tart import network, suspension
from simulators.tart.arguments import Arguments
from simulators.tart.errors import Failure
from simulators.tart.guest import Guest
from simulators.tart.machine import SOCKET, Machine
from simulators.tart.network import Lease, Softnet
from simulators.tart.settings import Settings
from simulators.tart.share import Share


class Runner:
    """A machine whose lock this process holds."""

    def __init__(
        self,
        settings: Settings,
        machine: Machine,
        config: dict[str, Any],
        arguments: Arguments,
        shares: list[Share],
        hit: dict[str, dict[str, Any]],
        softnet: Softnet | None,
        slot: int,
    ) -> None:
        self.settings = settings
        self.machine = machine
        self.config = config
        self.arguments = arguments
        self.shares = shares
        self.hit = hit
        self.softnet = softnet
        self.slot = slot
        self.resumed = machine.suspended()
        self.address = network.choose_address(settings, config["macAddress"])
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.control: socket.socket | None = None
        self.poll = select.poll()

    def run(self) -> int:
        if self.resumed:
            self._say("restoring VM state from a snapshot...")
            suspension.restore(self.machine, self.config, faulty="does not restore" in self.hit)
            self._say("resuming VM...")
        time.sleep(self.settings["t_handlers"])  # until here SIGINT is lost
        signals, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno())
        for handled in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(handled, lambda *_: None)
        self._start_guest()
        self._plan()
        began = time.monotonic()
        self.poll.register(signals, select.POLLIN)
        self.poll.register(self.guest.channel, select.POLLIN)
        if self.softnet:
            self.poll.register(self.softnet.ours, select.POLLIN)
        while True:
            wait = 1.0
            if self.due:
                wait = min(wait, max(0.0, self.due[0][0] - (time.monotonic() - began)))
            ready = {descriptor for descriptor, _ in self.poll.poll(wait * 1000)}
            if not ready and self.settings.abandoned():
                self._end(1)
            while self.due and self.due[0][0] <= time.monotonic() - began:
                self.due.pop(0)[1]()
            if signals.fileno() in ready:
                for number in signals.recv(64):
                    self._signalled(number)
            if self.control and self.control.fileno() in ready:
                self._connect(self.control)
            if self.softnet and self.softnet.ours.fileno() in ready:
                self.guest.kill()
                raise Failure(
                    'RuntimeFailed(why: "Softnet process terminated prematurely")', prefix=True
                )
            if self.guest.channel.fileno() in ready:
                self._told(self.guest.channel.recv(64))

    def _start_guest(self) -> None:
        knobs, hit = self.settings, self.hit
        if "unroutable" in hit:
            network.add_route(knobs, self.address)
        init = {
            "address": self.address,
            "port": knobs["port"],
            "ssh": None if "no ssh" in hit or "unroutable" in hit else knobs["t_ssh"],
            "agent": None if "no agent" in hit else knobs["t_agent"],
            "dialect": knobs["agent"],
            "faults": knobs.faults("ssh", self.machine.name),
        }
        directory = os.path.join(knobs.host, "guests", f"{os.getpid()}-{time.time_ns()}")
        self.guest = Guest(
            directory, self.machine.path, self.config["os"], self.shares, init, self.slot
        )
        self.guest.start()

    def _plan(self) -> None:
        knobs, mac = self.settings, self.config["macAddress"]
        lease = Lease(knobs, mac, self.address, self.hit)
        plan: list[tuple[float, Callable[[], None]]] = []
        if knobs["t_sock"] is not None and "no socket" not in self.hit:
            plan.append((knobs["t_sock"], self._bind))
        plan += [(when, partial(lease.grant, address)) for when, address in lease.due().items()]
        if knobs["t_lease"] is not None and self.softnet is None:
            plan.append((knobs["t_lease"], partial(lease.neighbour, mac, self.address)))
        if crash := self.hit.get("crash"):
            plan.append((crash.get("seconds", 2), self._crash))
        self.due = sorted(plan, key=lambda entry: entry[0])
        knobs.journal.write(
            "network",
            machine=self.machine.name,
            softnet=self.softnet is not None,
            **{
                name: self.arguments.value(f"--net-softnet-{name}")
                for name in ("allow", "block", "expose")
            },
        )

    def _bind(self) -> None:
        """Bind `control.sock`; from 2.30.6 on, one that an earlier run left is in the way.

        Releases say nothing of it, and have no agent then; later builds fail.
        """
        relative = self.settings.version >= (2, 30, 6)
        os.chdir(self.machine.path)
        if not relative:
            if len(os.fsencode(self.machine.file(SOCKET))) > 103:
                return
            if os.path.exists(SOCKET):
                os.unlink(SOCKET)
        self.control = socket.socket(socket.AF_UNIX)
        try:
            self.control.bind(SOCKET)
        except OSError:
            self.control = None
            if self.settings["version"] == "SNAPSHOT":
                self.guest.kill()
                text = "bind(descriptor:ptr:bytes:): Address already in use (errno: 48)"
                raise Failure(text, prefix=True) from None
            return
        self.control.listen(16)
        self.poll.register(self.control, select.POLLIN)

    def _connect(self, control: socket.socket) -> None:
        """Hand a connection to the guest, which closes it if nobody is there."""
        connection, _ = control.accept()
        with connection:
            socket.send_fds(self.guest.channel, [b"connect"], [connection.fileno()])

    def _signalled(self, number: int) -> None:
        if number == signal.SIGINT and "deaf" not in self.hit:
            self._say("Stopping VM...")
            time.sleep(self.settings["t_stop"])
            self._end(0)
        elif number == signal.SIGUSR1:
            able = self.resumed or self.arguments.flag("--suspendable")
            self._end(suspension.suspend(self, able=able and self.config["os"] == "darwin"))
        elif number == signal.SIGUSR2:
            self._say("Requesting guest OS to stop...")
            if self.config["os"] == "linux":  # macOS asks somebody at the screen
                self._told(b"shutdown")

    def _told(self, message: bytes) -> None:
        """Do what the guest asks for."""
        if message == b"sync":
            self.guest.flush()
            self.guest.channel.send(b"done")
        elif message == b"shutdown":
            self.guest.flush()
            self._say("guest has stopped the virtual machine")
            self._end(0)
        elif not message:
            self._crash()

    def _crash(self) -> None:
        self._say(
            "guest has stopped the virtual machine due to error: Error Domain=VZErrorDomain Code=1 "
            '"Internal Virtualization error. The virtual machine stopped unexpectedly."'
        )
        with open(self.guest.log, encoding="utf-8", errors="replace") as log:
            sys.stderr.write(log.read())  # nothing, unless the simulation itself went wrong
        self._end(0)

    def _say(self, text: str) -> None:
        """Print a line; if nobody reads, die of it, unless this build does not."""
        try:
            print(text, flush=True)
        except BrokenPipeError:
            if self.settings["dies_unread"]:
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGPIPE)
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 # until the end

    say = _say

    def _end(self, code: int) -> NoReturn:
        self.guest.kill()
        sys.exit(code)
