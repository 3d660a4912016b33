"""Becomes an instance: `python -I -S launcher.py NAME CONTROL SETUP [INHERITED...]`.

Run as a script with a clean environment, by an interpreter without site-packages: only the standard
library is there. CONTROL is a socket, and the lifeline at the same time: when the other end
closes, the instance ends. SETUP is a file descriptor with a `Setup`. INHERITED are op-locks, held
until the instance can be found by its name.

The name stands in the arguments so that a listing finds it in the process table.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from claw_core.local import init, kernel, namespaces, payload
from claw_core.local.setup import Failure, Setup

# A payload may be able to write there, and could slip modules of its own in.
del sys.path[0]


def main() -> None:
    """Set the instance up, say so or why not, and serve."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a command that is about to start shall just end
    control = socket.socket(fileno=int(sys.argv[2]))
    control.set_inheritable(False)
    with open(int(sys.argv[3]), "rb") as file:
        setup = Setup.decode(file.read())
    inherited = [int(number) for number in sys.argv[4:]]
    for descriptor in inherited:
        os.set_inheritable(descriptor, False)
    os.umask(0o022)
    try:
        if init.orphaned(control):
            return
        if setup.engine == "namespaces":
            identities = namespaces.create(setup)
            first = os.fork()
            if first:
                namespaces_held = [one for one in identities if one is not None]
                _wait(first, [control.fileno(), *inherited, *namespaces_held])
            namespaces.populate(setup, identities)
            confine = payload.Confinement(setup)
        else:
            kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
            confine = payload.Confinement(setup)
            if setup.become:
                import tarfile  # noqa: F401 - the standard library may be out of reach afterwards

                namespaces.become(setup)
        kernel.drop_capabilities()
        # Nothing of the payload's user may look into, or trace, what holds the instance together.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        if init.orphaned(control):
            return
    except Failure as error:
        _say(control, {"error": str(error), "remedy": error.remedy})
        return
    except OSError as error:
        _say(control, {"error": str(error), "errno": error.errno})
        return
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    _say(control, {"ready": os.getpid()})
    for descriptor in inherited:
        os.close(descriptor)
    init.serve(control, confine)


def _wait(first: int, descriptors: list[int]) -> None:
    """Stay as the parent of the first process, holding nothing, and end with it."""
    for descriptor in (0, 1, 2, *descriptors):
        os.close(descriptor)
    os.waitpid(first, 0)
    os._exit(0)


def _say(control: socket.socket, message: dict[str, object]) -> None:
    try:
        control.send(json.dumps(message).encode())
    except OSError:
        return  # nobody is left to hear it, so nothing must be served either


if __name__ == "__main__":
    main()
