"""What can go wrong on purpose, and where."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from simulators.tart.errors import Failure
from simulators.tart.settings import Settings

VZ = 'Error Domain=VZErrorDomain Code={} "{}" UserInfo={{NSLocalizedFailure={}}}'
FAILURES: dict[str, dict[str, Failure]] = {
    "clone": {
        "no such file": Failure(
            "The file “config.json” couldn’t be opened because there is no such file.", prefix=True
        ),
        "no space": Failure(
            "You can’t save the file “disk.img” because the volume “Data” is out of space.",
            prefix=True,
        ),
    },
    "run": {
        "keychain": Failure(
            "SecKeyCreateRandomKey_ios failed: Failed to generate keypair: "
            "Interaction is not allowed with the Security Server",
            prefix=True,
        ),
        "does not start": Failure(
            VZ.format(1, "The virtual machine failed to start.", "Internal Virtualization error."),
            prefix=True,
        ),
        "auxiliary storage": Failure(
            VZ.format(2, "Failed to lock auxiliary storage.", "Invalid configuration."), prefix=True
        ),
        "limit": Failure("The number of VMs exceeds the system limit"),
        "old limit": Failure(
            'Error Domain=VZErrorDomain Code=6 "The maximum supported number of active virtual '
            'machines has been reached." UserInfo={}',
            prefix=True,
        ),
    },
    "list": {
        "no such file": Failure(
            "The file “disk.img” couldn’t be opened because there is no such file.", prefix=True
        ),
    },
    "ip": {
        "truncated leases": Failure('Truncated(name: "truncated DHCPD leases file")', prefix=True),
    },
}
"""Kinds that end a call with a text; each verb does so where the real one would."""

EFFECTS: dict[str, set[str]] = {
    "clone": {"hang with lock", "killed after", "killed before", "prunes", "source gone"},
    "run": {
        "limit late",
        "crash",
        "no lease",
        "wrong lease",
        "torn lease",
        "no ssh",
        "no agent",
        "no socket",
        "unroutable",
        "deaf",
        "slow to die",
        "does not restore",
    },
    "ssh": {"refused", "reset", "hang", "denied", "host key", "cut"},
    "stop": {"early"},
    "delete": {"is running", "half"},
    "list": {"truncated", "invalid"},
    "ip": {"empty"},
    "exec": {"drop", "no exit"},
    "pull": set(),
    "fqn": set(),
    "suspend": set(),
    "get": set(),
    "set": set(),
    "rename": set(),
}
"""Kinds with an effect of their own."""

ANYWHERE = {"hang", "slow", "fail", "killed"}
"""Kinds that every verb has."""


def known(verb: str, kind: str) -> bool:
    """Whether there is such a fault."""
    if kind in FAILURES.get(verb, {}) or kind in EFFECTS.get(verb, ()):
        return True
    return kind in ANYWHERE and verb in EFFECTS and verb != "ssh"


def strike(settings: Settings, verb: str, name: str = "") -> dict[str, dict[str, Any]]:
    """The faults that hit a call of this verb, once those have struck that every verb has.

    Raises:
        Failure: the call fails.
    """
    hit = settings.faults(verb, name)
    for kind, fault in hit.items():
        if kind in {"hang", "slow"}:
            time.sleep(fault.get("seconds", 1e6))
        elif kind == "killed":
            die()
        elif kind == "fail":
            raise Failure(
                fault.get("text", ""), fault.get("code", 1), prefix=fault.get("prefix", False)
            )
    return hit


def fail(hit: dict[str, dict[str, Any]], verb: str) -> None:
    """End the call if a fault of those that end it with a text has hit it."""
    for kind, failure in FAILURES[verb].items():
        if kind in hit:
            raise failure


def die() -> None:
    """End as by `kill -9`."""
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
