"""The files of a guest: an image's below, its own above, and what is mounted into them."""

from __future__ import annotations

import os

from simulators.container import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2"))


def disk(bundle: str) -> str:
    """Where the root alone is seen, without what is mounted into it."""
    return f"{bundle}/disk"


def mount_disk(bundle: str, lower: str) -> str:
    """Mount the root alone, in a mount namespace of this process, and return where."""
    for part in ("disk", "root", "upper", "work"):
        os.makedirs(f"{bundle}/{part}", exist_ok=True)
    options = f"lowerdir={lower},upperdir={bundle}/upper,workdir={bundle}/work"
    options += ",userxattr" if linux.mapped() else ""
    linux.mount("overlay", disk(bundle), "overlay", 0, options)
    return disk(bundle)


def mount_root(bundle: str, lower: str, configuration: dict[str, Any]) -> str:
    """Mount a guest's root and everything in it, and return where."""
    root = f"{bundle}/root"
    linux.mount(mount_disk(bundle, lower), root, "", linux.BIND)
    for part in ("proc", "sys", "dev", "tmp", "run"):
        os.makedirs(f"{root}/{part}", exist_ok=True)
    _mount_devices(f"{root}/dev")
    for mount in configuration["mounts"]:
        _mount_one(root, mount)
    if configuration["readOnly"]:
        linux.mount("none", root, "", linux.REMOUNT | linux.BIND | linux.RDONLY)
    return root


def inside(root: str, path: str) -> str:
    """Where a path of the guest is, its symbolic links followed as the guest would."""
    done, rest = "", [part for part in path.split("/") if part not in {"", "."}]
    for _ in range(256):
        if not rest:
            break
        part = rest.pop(0)
        if part == "..":
            done = os.path.dirname(done)
        elif os.path.islink(f"{root}{done}/{part}"):
            target = os.readlink(f"{root}{done}/{part}")
            done = "" if target.startswith("/") else done
            rest = [one for one in target.split("/") if one not in {"", "."}] + rest
        else:
            done = f"{done}/{part}"
    return root + done


def _mount_devices(place: str) -> None:
    linux.mount("tmpfs", place, "tmpfs", linux.NOSUID, "mode=755,size=64k")
    for device in _DEVICES:
        with open(f"{place}/{device}", "wb"):
            pass
        linux.mount(f"/dev/{device}", f"{place}/{device}", "", linux.BIND)
    for link, target in _LINKS:
        os.symlink(f"/proc/self/fd{target}", f"{place}/{link}")
    os.mkdir(f"{place}/shm")
    linux.mount("shm", f"{place}/shm", "tmpfs", linux.NOSUID | linux.NODEV, "mode=1777,size=64m")


def _mount_one(root: str, mount: dict[str, Any]) -> None:
    target, options = inside(root, mount["destination"]), mount["options"]
    if "tmpfs" in mount["type"]:
        os.makedirs(target, exist_ok=True)
        given = ",".join(one for one in options if "=" in one)
        linux.mount("tmpfs", target, "tmpfs", linux.NOSUID | linux.NODEV, given)
        return
    source = mount["source"]
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "ab"):
            pass
    linux.mount(source, target, "", linux.BIND | linux.REC)
    if "ro" in options:
        linux.mount("none", target, "", linux.REMOUNT | linux.BIND | linux.RDONLY)
