"""A `tart run` that is slow to die: its lock is held for longer than it lives."""

from __future__ import annotations

import os
import signal
import time
from typing import NoReturn

from simulators.tart import locks
from simulators.tart.machine import Machine
from simulators.tart.settings import Settings


def linger(settings: Settings, machine: Machine, seconds: float) -> bool:
    """Have a child take the lock, which it keeps for so long after this process is dead.

    The child passes signals on, so that who sends them to the holder of the lock sees no
    difference; for SIGKILL, `tart stop` asks here whom it means.

    Returns:
        Whether it has the lock.
    """
    parent = os.getpid()
    life, told = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(life[1])
        _hold(machine, parent, life[0], told[1], seconds)
    os.close(life[0])
    os.close(told[1])
    with open(os.path.join(settings.host, "zombies", str(pid)), "w", encoding="utf-8") as file:
        file.write(str(parent))
    return os.read(told[0], 1) == b"y"


def real(settings: Settings, pid: int) -> int:
    """The `tart run` behind the holder of a lock."""
    try:
        with open(os.path.join(settings.host, "zombies", str(pid)), encoding="utf-8") as file:
            return int(file.read())
    except FileNotFoundError:
        return pid


def _hold(machine: Machine, parent: int, life: int, told: int, seconds: float) -> NoReturn:
    try:
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, lambda sent, _: os.kill(parent, sent))
        held = locks.take(machine.file("config.json"))
        os.write(told, b"n" if held is None else b"y")
        if held is not None:
            nothing = os.open("/dev/null", os.O_RDWR)
            for target in range(3):
                os.dup2(nothing, target)
            os.read(life, 1)  # until the parent is dead
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            time.sleep(seconds)
    finally:
        os._exit(0)
