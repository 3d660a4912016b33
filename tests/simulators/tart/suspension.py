"""What becomes of a machine that is suspended, and of its saved state."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from simulators.tart.errors import Failure
from simulators.tart.machine import STATE, Machine

if TYPE_CHECKING:
    from simulators.tart.runner import Runner

BOUND = ("cpuCount", "memorySize", "macAddress")
"""What may not change between a suspension and its end."""


def suspend(runner: Runner, *, able: bool) -> int:
    """Save the state; the exit code. If that fails, the machine is gone nevertheless."""
    if not able:
        runner.say(
            "Failed to suspend the VM: Invalid virtual machine configuration. "
            "Unsupported console device in configuration."
        )
        return 1
    runner.say("pausing VM to take a snapshot...")
    runner.say("creating a snapshot...")
    path = runner.machine.file(STATE)
    with open(path, "w", encoding="utf-8") as file:
        file.write("{")
        file.flush()
        time.sleep(runner.settings["t_suspend"])
        runner.guest.flush()
        file.write(json.dumps({key: runner.config[key] for key in BOUND})[1:])
    runner.say("snapshot created successfully! shutting down the VM...")
    return 0


def restore(machine: Machine, config: dict[str, Any], *, faulty: bool) -> None:
    """Use up a saved state.

    Raises:
        Failure: it is not whole, or of another configuration; it stays where it is.
    """
    try:
        with open(machine.file(STATE), encoding="utf-8") as file:
            saved = json.load(file)
    except ValueError:
        saved = None
    if faulty or saved != {key: config[key] for key in BOUND}:
        raise Failure(
            'Error Domain=VZErrorDomain Code=12 "The virtual machine failed to restore." '
            "UserInfo={NSLocalizedFailureReason=The saved state is not valid.}",
            prefix=True,
        )
    os.unlink(machine.file(STATE))
