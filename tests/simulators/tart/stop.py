"""`tart stop` and `tart suspend`: signals to the process that holds the lock."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from simulators.tart import errors, faults
from simulators.tart.arguments import VALUE, parse
from simulators.tart.library import Library
from simulators.tart.machine import STATE
from simulators.tart.settings import Settings
from simulators.tart.zombie import real


def stop(settings: Settings, argv: list[str]) -> int:
    arguments = parse(argv, {"-t": "--timeout", "--timeout": VALUE}, ["name"])
    timeout = arguments.number("--timeout", 30)
    hit = faults.strike(settings, "stop", arguments.names[0])
    library = Library(settings.home)
    library.collect(noise=settings["garbage_noise"])
    machine = library.find(arguments.names[0])
    pid = machine.runner()
    if not pid:
        if not machine.suspended():
            raise errors.not_running(machine.name)
        os.unlink(machine.file(STATE))
        return 0
    _send(pid, signal.SIGINT)
    if "early" in hit:
        return 0
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not machine.runner():
            return 0
        time.sleep(0.1)
    if pid := machine.runner():
        _send(real(settings, pid), signal.SIGKILL)  # and nobody waits for its end
    return 0


def suspend(settings: Settings, argv: list[str]) -> int:
    (name,) = parse(argv, {}, ["name"]).names
    faults.strike(settings, "suspend", name)
    library = Library(settings.home)
    library.collect(noise=settings["garbage_noise"])
    pid = library.find(name).runner()
    if not pid:
        raise errors.not_running(errors.not_running(name).text)
    _send(pid, signal.SIGUSR1)
    return 0


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
