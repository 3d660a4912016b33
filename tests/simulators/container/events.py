"""What may happen to the machine from outside: crashes, kills, a guest that freezes."""

from __future__ import annotations

import os
import signal
import time

from simulators.container.errors import Failure
from simulators.container.mac import Mac, alive, started
from simulators.container.xpc import SERVER, runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def processes(mac: Mac) -> Iterator[tuple[int, str]]:
    """Every process of the machine that is no guest: pid and what it is.

    `cli` is a command, `apiserver` a request to the server, `helper` a container's helper. A guest
    that has not begun its program yet counts as a helper.
    """
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or started(int(entry)) is None:
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            with open(f"/proc/{entry}/comm", encoding="utf-8") as file:
                comm = file.read().strip()
        except OSError:
            continue  # it has just ended
        program = next((word for word in words[1:3] if word.startswith(b"/")), b"").decode()
        if os.path.dirname(program) == mac.path("bin"):
            helper = program.endswith("/container-runtime-linux")
            yield int(entry), "helper" if helper else SERVER if comm == SERVER else "cli"


def crash(mac: Mac) -> None:
    """Let the server die: requests end, and the next one finds it as after a fresh start."""
    with mac.locked("state"):  # the next one starts when this one is dead
        for pid, kind in processes(mac):
            if kind == SERVER and pid != os.getpid():
                kill(pid)
        remove(mac.path("state.json"))
    with open("/proc/self/comm", encoding="utf-8") as file:
        if file.read().strip() == SERVER:
            kill(os.getpid())


def reboot(mac: Mac) -> None:
    """Let the machine lose its power: all that ran is gone."""
    with mac.locked("state"):
        for pid, kind in processes(mac):
            if kind != "cli":
                kill(pid)
        for name in mac.helpers():
            remove(mac.path("launchd", name))
        remove(mac.path("state.json"))


def kill_helper(mac: Mac, name: str) -> None:
    """Kill the helper of a container, and return when it is dead."""
    helper = mac.helpers().get(name)
    if helper and alive(helper) and not helper.get("foreign"):
        kill(helper["pid"])
        guest = mac.load("containers", name, "init.json")
        while guest and alive(guest):  # the kernel is about to end it, too
            time.sleep(0.001)


def freeze(mac: Mac, name: str) -> None:
    """Let the guest of a container freeze for good."""
    try:
        runtime(mac, name, {"do": "freeze"})
    except Failure:
        return  # there is nothing to freeze


def forget(mac: Mac, name: str) -> None:
    """Let the server forget a container, whose helper lives on."""
    with mac.changed("state", {}) as state:
        state.pop(name, None)
    os.rename(mac.path("containers", name), mac.path("forgotten", name))


def kill(pid: int) -> None:
    """Kill a process, and return when it is dead."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    while started(pid) is not None:
        time.sleep(0.001)


def remove(path: str) -> None:
    """Remove a file that may be gone."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
