"""What the flags of `run` and `create` make of a container: its `config.json`."""

from __future__ import annotations

import os
import re
import time

from simulators.container import mounts
from simulators.container.chance import shuffled
from simulators.container.errors import Failure, unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simulators.container.mac import Mac

MIB = 1 << 20
MINIMUM_MEMORY = 200 * MIB
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_UNITS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_LIMITS = {"nofile", "nproc", "core", "stack", "memlock", "fsize", "cpu", "data", "as", "rss"}


def make(
    mac: Mac, name: str, image: dict[str, Any], values: dict[str, Any], arguments: list[str]
) -> dict[str, Any]:
    """Return the configuration of a container.

    Raises:
        Failure: a flag has a value that cannot be.
    """
    if values["publish"] or values["publish-socket"] or values["ssh"]:
        raise unsupported("ports and sockets")
    networks = _networks(mac, name, values["network"])
    configuration: dict[str, Any] = {
        "capAdd": values.get("cap-add", []),
        "capDrop": values.get("cap-drop", []),
        "creationDate": time.time(),
        "dns": {
            "nameservers": values["dns"],
            "options": values["dns-option"],
            "searchDomains": values["dns-search"],
        },
        "id": name,
        "image": {"descriptor": image["descriptor"], "reference": image["name"]},
        "initProcess": init_process(image, values, arguments),
        "labels": dict(_label(one) for one in values["label"]),
        "mounts": [
            *(mounts.of_mount(one) for one in values["mount"]),
            *(mounts.of_volume(mac, one) for one in values["volume"]),
            *(mounts.tmpfs(one) for one in values["tmpfs"]),
        ],
        "networks": networks,
        "platform": {"architecture": "arm64", "os": "linux"},
        "publishedPorts": [],
        "publishedSockets": [],
        "readOnly": values.get("read-only", False),
        "resources": {
            "cpuOverhead": 1,
            "cpus": values["cpus"] or 4,
            "memoryInBytes": memory(values["memory"] or "1g"),
        },
        "rosetta": values["rosetta"],
        "runtimeHandler": "container-runtime-linux",
        "ssh": False,
        "sysctls": {},
        "useInit": values.get("init", False),
        "virtualization": values["virtualization"],
    }
    if image["config"].get("StopSignal"):
        configuration["stopSignal"] = image["config"]["StopSignal"]
    if values.get("shm-size"):
        configuration["shmSize"] = memory(values["shm-size"])
    return configuration


def init_process(
    image: dict[str, Any], values: dict[str, Any], arguments: list[str]
) -> dict[str, Any]:
    """The process of `run`: the image's, as far as nothing else is said."""
    given = image["config"]
    entry = [values["entrypoint"]] if values["entrypoint"] else given.get("Entrypoint") or []
    rest = arguments or ([] if values["entrypoint"] else given.get("Cmd") or [])
    argv = [*entry, *rest]
    if not argv:
        text = "Command/Entrypoint not specified for container process"
        raise Failure("invalidArgument", text)
    variables = {
        one.partition("=")[0]: one for one in (*given.get("Env", ()), *environment(values))
    }
    return {
        "arguments": argv[1:],
        "environment": shuffled(variables.values()),
        "executable": argv[0],
        "rlimits": [_limit(one) for one in values["ulimit"]],
        "supplementalGroups": [],
        "terminal": False,
        "user": user(values, _named(given["User"]) if given.get("User") else _ids(0, 0)),
        "workingDirectory": values["workdir"] or given.get("WorkingDir") or "/",
    }


def environment(values: dict[str, Any]) -> list[str]:
    """The variables of `--env-file` and `-e`; a bare name is inherited, or left out."""
    found = []
    for path in values["env-file"]:
        try:
            with open(path, encoding="utf-8") as file:
                lines = [line.strip() for line in file]
        except OSError:
            raise Failure("notFound", f"failed to read envfile at {path}") from None
        found += [line for line in lines if line and not line.startswith("#")]
    found += values["env"]
    return [one if "=" in one else f"{one}={os.environ[one]}" for one in found if _known(one)]


def user(values: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """Who a process is to be."""
    if values["user"]:
        return _named(values["user"])
    if values["uid"] is not None or values["gid"] is not None:
        known = default.get("id", {"uid": 0, "gid": 0})
        uid, gid = values["uid"], values["gid"]
        return _ids(known["uid"] if uid is None else uid, known["gid"] if gid is None else gid)
    return default


def check_name(name: str) -> None:
    """See that a name can be one.

    Raises:
        Failure: it cannot.
    """
    if not _NAME.fullmatch(name) or len(name) > 63:
        raise Failure("invalidArgument", f"container ID {name} is not a valid container ID")


def memory(text: str) -> int:
    """Bytes: a number alone means bytes, units are binary, and a MiB is the smallest step."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([bkmgtp]?)(?:i?b)?", text.lower())
    if match is None:
        raise Failure("invalidArgument", f"invalid memory value: {text}")
    size = int(float(match[1]) * 1024 ** _UNITS[match[2]])
    return size // MIB * MIB if match[2] else size


def _known(variable: str) -> bool:
    return "=" in variable or variable in os.environ


def _ids(uid: int, gid: int) -> dict[str, Any]:
    return {"id": {"gid": gid, "uid": uid}}


def _named(text: str) -> dict[str, Any]:
    uid, _, gid = text.partition(":")
    if uid.isdigit() and (gid.isdigit() or not gid):
        return _ids(int(uid), int(gid or 0))
    return {"raw": {"userString": text}}


def _label(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if "=" in value:
        raise Failure("invalidArgument", f"invalid label format {text}")
    return key, value


def _limit(text: str) -> dict[str, Any]:
    name, _, value = text.partition("=")
    soft, _, hard = value.partition(":")
    if name not in _LIMITS or not soft.isdigit() or not (hard or soft).isdigit():
        raise Failure("invalidArgument", f"invalid ulimit: {text}")
    return {"limit": f"RLIMIT_{name.upper()}", "soft": int(soft), "hard": int(hard or soft)}


def _networks(mac: Mac, name: str, wanted: list[str]) -> list[dict[str, Any]]:
    if wanted == ["none"]:
        return []
    found = []
    for one in wanted or ["default"]:
        network = one.partition(",")[0]
        if network != "default" and network not in mac.knob("networks"):
            raise Failure("notFound", f"network {network} not found")
        found.append({"network": network, "options": {"hostname": name, "mtu": 1280}})
    return found
