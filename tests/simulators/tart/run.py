"""`tart run`: holds the lock of a machine for as long as its guest lives."""

from __future__ import annotations

import fcntl
import os
import random
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from simulators.tart import errors, leases, locks, share
from simulators.tart.arguments import FLAG, MANY, VALUE, Arguments, parse
from simulators.tart.errors import Failure, Usage
from simulators.tart.guest import Guest
from simulators.tart.library import Library
from simulators.tart.machine import SOCKET, STATE, Machine, random_mac
from simulators.tart.settings import Settings

FLAGS = (
    "--no-graphics --no-audio --no-clipboard --serial --recovery --vnc --vnc-experimental --nested "
    "--net-softnet --net-host --suspendable --capture-system-keys --no-trackpad --no-pointer "
    "--no-keyboard --capture-keys"
)
VALUES = (
    "--serial-path --rosetta --net-softnet-allow --net-softnet-block --net-softnet-expose "
    "--root-disk-opts"
)
OPTIONS = {
    **dict.fromkeys(FLAGS.split(), FLAG),
    **dict.fromkeys(VALUES.split(), VALUE),
    **dict.fromkeys(("--dir", "--disk", "--net-bridged"), MANY),
}


def run(settings: Settings, argv: list[str]) -> int:
    options = dict(OPTIONS)
    if settings.version >= (2, 34):
        options["--net-softnet-control-fd"] = VALUE
    arguments = parse(argv, options, ["name"])
    networks = ("--net-bridged", "--net-softnet", "--net-host")
    if sum(arguments.flag(one) for one in networks) > 1:
        raise Usage("--net-bridged, --net-softnet and --net-host are mutually exclusive")
    shares = share.parse(arguments.values("--dir"))
    library = Library(settings.home)
    machine = library.at(arguments.names[0])
    if not machine.exists():
        raise Failure(errors.missing(machine.name).text, prefix=True)
    library.collect(noise=settings["garbage_noise"])
    return Runner(settings, library, machine, arguments, shares).run()


class Runner:
    """One `tart run`."""

    def __init__(
        self,
        settings: Settings,
        library: Library,
        machine: Machine,
        arguments: Arguments,
        shares: list[share.Share],
    ) -> None:
        self.settings = settings
        self.library = library
        self.machine = machine
        self.arguments = arguments
        self.shares = shares
        self.config = machine.config()
        self.slot = -1
        self.guest: Guest
        self.address = ""

    def run(self) -> int:
        self._lock()
        self._take_slot()
        self._restore()
        self._start()
        return self._live()

    # From here to the lock, SIGINT is ignored and the flock of TART_HOME is held.

    def _lock(self) -> None:
        machine = self.machine
        with locks.directory(self.settings.home):
            if self._collides():
                print("There is already a running VM with the same MAC address!")
                print("Resetting VM to assign a new MAC address...", flush=True)
                self.config["macAddress"] = random_mac()
                machine.write(self.config)
                if machine.suspended():
                    os.unlink(machine.file(STATE))
            for one in self.shares:
                one.check()
            time.sleep(self.settings["t_start"])
            self.suspended = machine.suspended()
            if locks.take(machine.file("config.json")) is None:
                raise Failure(f'VM "{machine.name}" is already running!', 2)
        # From here on nothing in this process may open config.json: closing it frees the lock.

    def _collides(self) -> bool:
        """Whether another machine that runs has the same MAC."""
        return any(
            other.name != self.machine.name
            and other.runner()
            and other.config()["macAddress"] == self.config["macAddress"]
            for other in self.library.machines()
        )

    def _take_slot(self) -> None:
        """Count against the limit of running macOS guests of the whole host."""
        if self.config["os"] != "darwin":
            return
        for number in range(self.settings["macos_limit"]):
            path = os.path.join(self.settings.host, "macos", str(number))
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
            else:
                self.slot = descriptor
                return
        raise self._limit()

    def _limit(self) -> Failure:
        others = [
            one.name
            for one in self.library.machines()
            if one.name != self.machine.name and one.runner()
        ]
        hint = f" (other running VMs: {', '.join(others)})" if others else ""
        return Failure(f"The number of VMs exceeds the system limit{hint}")

    def _restore(self) -> None:
        if self.suspended:
            print("restoring VM state from a snapshot...")
            os.unlink(self.machine.file(STATE))
            print("resuming VM...", flush=True)

    def _start(self) -> None:
        self.address = self._choose_address()
        directory = os.path.join(self.settings.host, "guests", f"{os.getpid()}-{time.time_ns()}")
        knobs = self.settings
        init: dict[str, Any] = {
            "address": self.address,
            "port": knobs["port"],
            "ssh": knobs["t_ssh"],
            "agent": knobs["t_agent"],
            "faults": {},
        }
        self.guest = Guest(directory, self.machine.path, self.config["os"], self.shares, init)
        self.guest.start()

    def _choose_address(self) -> str:
        """The address that this MAC has a lease for, or one that nobody uses."""
        known = leases.resolve(self.settings.leases, self.config["macAddress"])
        while True:
            parts = (random.randrange(64, 128), random.randrange(256), random.randrange(1, 255))
            address = known or ".".join(str(part) for part in (127, *parts))
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, self.settings["port"]))
                except OSError:
                    known = None
                    continue
            return address

    def _live(self) -> int:
        """Wait for signals, for the guest, and for what is due, until the end."""
        began = time.monotonic()
        knobs = self.settings
        due = {
            self._handle_signals: knobs["t_handlers"],
            self._bind: knobs["t_sock"],
            self._lease: knobs["t_lease"],
        }
        self.signals, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno())
        poll = select.poll()
        poll.register(self.signals, select.POLLIN)
        poll.register(self.guest.channel, select.POLLIN)
        while True:
            now = time.monotonic() - began
            for action in [action for action, when in due.items() if when <= now]:
                del due[action]
                action()
            wait = max(1, (min(due.values()) - now) * 1000) if due else None
            ready = {descriptor for descriptor, _ in poll.poll(wait)}
            if self.signals.fileno() in ready:
                for number in self.signals.recv(64):
                    self._signalled(number)
            if self.guest.channel.fileno() in ready:
                self._told(self.guest.channel.recv(64))

    def _handle_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda *_: None)

    def _bind(self) -> None:
        """Bind `control.sock`; one that an earlier run left is in the way."""
        os.chdir(self.machine.path)
        self.control = socket.socket(socket.AF_UNIX)
        self.control.bind(SOCKET)
        self.control.listen(16)

    def _lease(self) -> None:
        expires = int(time.time()) + self.settings["lease_seconds"]
        mac = self.config["macAddress"]
        leases.grant(self.settings.leases, leases.Lease(mac, self.address, expires))

    def _signalled(self, number: int) -> None:
        if number == signal.SIGINT:
            print("Stopping VM...", flush=True)
            time.sleep(self.settings["t_stop"])
            self._end(0)

    def _told(self, message: bytes) -> None:
        """Do what the guest asks for."""
        if message == b"sync":
            self.guest.flush()
            self.guest.channel.send(b"done")
        elif message == b"shutdown":
            self.guest.flush()
            print("guest has stopped the virtual machine", flush=True)
            self._end(0)
        elif not message:
            print("guest has stopped the virtual machine due to error: it crashed", flush=True)
            self._end(0)

    def _end(self, code: int) -> NoReturn:
        self.guest.kill()
        sys.exit(code)
