"""What launchd does for the server: start a container's helper, and end it."""

from __future__ import annotations

import os
import socket
import sys

from simulators.container import events
from simulators.container.mac import Mac, started


def register(mac: Mac, name: str) -> None:
    """Start a container's helper, as launchd would."""
    bundle = mac.path("containers", name)
    place = os.open(bundle, os.O_PATH)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = f"/proc/self/fd/{place}/helper.socket"
    if os.path.lexists(path):
        os.unlink(path)
    listener.bind(path)
    listener.listen(128)
    pid = os.fork()
    if not pid:
        os.setsid()
        os.dup2(os.open(f"{bundle}/boot.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(listener.fileno(), 3)
        program = mac.path("bin", "container-runtime-linux")
        argv = [sys.executable, "-IS", program, "start", "--root", bundle, "--uuid", name]
        os.execve(sys.executable, argv, {})
    listener.close()
    os.close(place)
    mac.save({"pid": pid, "started": started(pid)}, "launchd", name)


def deregister(mac: Mac, name: str) -> None:
    """End a container's helper, and forget it."""
    events.kill_helper(mac, name)
    events.remove(mac.path("launchd", name))
