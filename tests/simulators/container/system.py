"""The commands `--version` and `system`."""

from __future__ import annotations

import sys
import time

from simulators.container import listing
from simulators.container.errors import Exit, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simulators.container.call import Call
    from simulators.container.mac import Mac

_COMMIT = "3c4c59c"
_APP_ROOT = "/Users/u/Library/Application Support/com.apple.container/"


def version(mac: Mac) -> str:
    """The line of `--version`."""
    return f"container CLI version {mac.knob('version')} (build: release, commit: {_COMMIT})"


def system_version(call: Call, values: dict[str, Any], _: list[str]) -> None:
    """`system version`: of the command, and of a server that answers."""
    said = call.mac.knob("version")
    rows = [_part("container", said)]
    if call.mac.knob("server") == "running":
        rows.append(
            _part("container-apiserver", f"container-apiserver version {said} (build: release)")
        )
    if values["format"] == "json":
        print(listing.compact(rows))
        return
    print("COMPONENT  VERSION  BUILD  COMMIT")
    for row in rows:
        print("  ".join((row["appName"], row["version"], row["buildType"], row["commit"])))


def status(call: Call, values: dict[str, Any], _: list[str]) -> None:
    """`system status`: whether the server answers."""
    state = call.mac.knob("server")
    if state == "silent":
        time.sleep(call.mac.knob("timeout_seconds"))
    said = {"running": "running", "unregistered": "unregistered"}.get(state, "not running")
    if values["format"] == "json":
        print(listing.compact(_status(call.mac, said)))
    elif said == "running":
        print("FIELD    VALUE\nstatus   running")
        print(f"appRoot  {_APP_ROOT}")
    else:
        tail = " and not registered with launchd" if said == "unregistered" else ""
        print(f"apiserver is not running{tail}")
    if said != "running":
        raise Exit(1)


def system_start(call: Call, values: dict[str, Any], _: list[str]) -> None:
    """`system start`: it asks on standard input unless it is told about the kernel."""
    mac = call.mac
    sys.stderr.write("Launching container-apiserver...\nTesting access to container-apiserver...\n")
    if mac.knob("server") == "silent":
        text = "failed to get a response from apiserver"
        cause = Failure("interrupted", "XPC connection error: Connection invalid")
        raise Failure("internalError", f"{text}: {cause.full()}")
    with mac.changed("config", {}) as config:
        config["server"] = "running"
    sys.stderr.write("Verifying machine API server is running...\n")
    if mac.knob("kernel") or values["disable-kernel-install"]:
        return
    if not values["enable-kernel-install"]:
        sys.stdout.write("Install the recommended default kernel from [URL]? [Y/n]: ")
        sys.stdout.flush()
        answer = sys.stdin.readline()
        if not answer:
            raise Failure("internalError", "failed to read user input")
        if answer.strip().lower() not in {"", "y", "yes"}:
            return
    sys.stderr.write("Installing kernel...\n")
    with mac.changed("config", {}) as config:
        config["kernel"] = True


def system_stop(call: Call, _: dict[str, Any], __: list[str]) -> None:
    """`system stop`: no backend may ever do this."""
    call.mac.violated("system stop")
    raise Exit(70)


def _part(name: str, said: str) -> dict[str, str]:
    return {"appName": name, "buildType": "release", "commit": _COMMIT, "version": said}


def _status(mac: Mac, said: str) -> dict[str, Any]:
    up, number = said == "running", mac.knob("version")
    if mac.version < (1, 4):
        return {
            "apiServerAppName": "container-apiserver" if up else "",
            "apiServerBuild": "release" if up else "",
            "apiServerCommit": _COMMIT if up else "",
            "apiServerVersion": number if up else "",
            "appRoot": _APP_ROOT if up else "",
            "installRoot": "/usr/local/" if up else "",
            "status": said,
        }
    if not up:
        return {"status": said}
    build = {"build": "release", "commit": _COMMIT, "version": number}
    return {
        "client": {"appName": "container", **build},
        "paths": {"appRoot": _APP_ROOT, "installRoot": "/usr/local/"},
        "server": {"appName": "container-apiserver", **build},
        "status": said,
    }
