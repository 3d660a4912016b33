"""`launchctl`, as far as it concerns the helpers of containers."""

from __future__ import annotations

import os
import sys

from simulators.container import events
from simulators.container.mac import Mac, alive

LABEL = "com.apple.container.container-runtime-linux."


def main(root: str, argv: list[str]) -> None:
    """Be `launchctl list`, or `launchctl bootout DOMAIN/LABEL`."""
    mac = Mac(root)
    number = f"{os.getpid()}-launchctl"
    mac.note({"call": number, "pid": os.getpid(), "program": "launchctl", "argv": argv, "env": []})
    if argv == ["list"]:
        code = _list(mac)
    elif len(argv) == 2 and argv[0] == "bootout":
        code = _bootout(mac, argv[1])
    else:
        sys.stderr.write("Unrecognized subcommand: not simulated\n")
        code = 64
    mac.note({"call": number, "exit": code})
    raise SystemExit(code)


def _list(mac: Mac) -> int:
    print("PID\tStatus\tLabel")
    print("-\t0\tcom.apple.SafariHistoryServiceAgent")
    if mac.knob("server") == "running":
        print("412\t0\tcom.apple.container.apiserver")
        print("420\t0\tcom.apple.container.container-network-vmnet.default")
    for name, helper in mac.helpers().items():
        pid, status = (helper["pid"], 0) if alive(helper) else ("-", -9)
        print(f"{pid}\t{status}\t{LABEL}{name}")
    return 0


def _bootout(mac: Mac, target: str) -> int:
    domain, _, label = target.rpartition("/")
    name = label.removeprefix(LABEL)
    helper = mac.helpers().get(name) if label.startswith(LABEL) else None
    if domain != mac.knob("domain") or helper is None:
        sys.stderr.write("Boot-out failed: 3: No such process\n")
        return 3
    if helper.get("foreign"):
        mac.violated(f"bootout of {name}, which is somebody else's")
    events.kill_helper(mac, name)
    events.remove(mac.path("launchd", name))
    return 0
