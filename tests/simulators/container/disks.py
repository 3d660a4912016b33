"""What the server does with the files of containers."""

from __future__ import annotations

import os
import shutil
import tarfile

from simulators.container import linux, rootfs
from simulators.container.errors import Failure, no_container
from simulators.container.mac import Mac, alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def copy_in(mac: Mac, name: str, source: str, target: str) -> str:
    """Copy into a container; what is mounted there is not seen, so it may be covered at once."""
    disk = _running(mac, name)
    place = rootfs.inside(disk, target)
    if os.path.isdir(place):
        target = os.path.join(target, os.path.basename(source))
        place = rootfs.inside(disk, target)
    elif target.endswith("/") and os.path.isfile(source):
        raise Failure("notFound", "destination directory does not exist")
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if os.path.isdir(source):
        shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, place)
        os.chmod(place, 0o644)
    return f"{name}:{target}"


def copy_out(mac: Mac, name: str, source: str, target: str) -> str:
    """Copy out of a container."""
    place = rootfs.inside(_running(mac, name), source)
    if not os.path.lexists(place):
        raise Failure("notFound", f"source path does not exist: {source}")
    if os.path.isdir(place):
        shutil.copytree(place, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copyfile(place, target)
    return target


def export(mac: Mac, name: str, archive: str) -> None:
    """Write a container's root, and nothing of what is mounted into it, to an archive."""
    state = (mac.load("state.json") or {}).get(name)
    if state is None:
        raise no_container(name)
    bundle = mac.path("containers", name)
    if state["state"] == "running":
        if mac.version < (1, 2, 1):
            raise Failure("invalidState", "container is not stopped")
        disk = _running(mac, name)
    else:
        linux.unshare(linux.NEWNS)  # of this request, which ends with it
        lower = mac.load("containers", name, "options.json")["lower"]
        disk = rootfs.mount_disk(bundle, lower)
    with tarfile.open(archive, "w") as tar:
        _add(tar, disk, "")


def _add(tar: tarfile.TarFile, disk: str, path: str) -> None:
    for entry in sorted(os.listdir(disk + path or "/")):
        member = tar.gettarinfo(f"{disk}{path}/{entry}")
        if member is None:
            continue  # a socket
        member.name = f"{path}/{entry}"
        if member.isreg():
            with open(f"{disk}{path}/{entry}", "rb") as file:
                tar.addfile(member, file)
        else:
            tar.addfile(member)
        if member.isdir():
            _add(tar, disk, f"{path}/{entry}")


def _running(mac: Mac, name: str) -> str:
    """The root of a container that runs, seen from outside."""
    state: dict[str, Any] | None = (mac.load("state.json") or {}).get(name)
    if state is None:
        raise no_container(name)
    helper = mac.helpers().get(name)
    if state["state"] != "running" or helper is None or not alive(helper):
        raise Failure("invalidState", f"container {name} is not running")
    return f"/proc/{helper['pid']}/root{rootfs.disk(mac.path('containers', name))}"
