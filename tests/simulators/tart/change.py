"""`tart set` and `tart rename`: they take no lock, and work on a machine that runs."""

from __future__ import annotations

import os
import secrets

from simulators.tart import faults
from simulators.tart.arguments import FLAG, VALUE, parse
from simulators.tart.errors import Failure, Usage
from simulators.tart.library import Library, is_remote
from simulators.tart.machine import GIGABYTE, random_mac
from simulators.tart.settings import Settings

OPTIONS = {
    **dict.fromkeys(("--cpu", "--memory", "--display", "--disk", "--disk-size"), VALUE),
    **dict.fromkeys(
        ("--display-refit", "--no-display-refit", "--random-mac", "--random-serial"), FLAG
    ),
}


def set_machine(settings: Settings, argv: list[str]) -> int:
    arguments = parse(argv, OPTIONS, ["name"])
    cpu, memory = arguments.number("--cpu", 0), arguments.number("--memory", 0)
    size = arguments.number("--disk-size", 0)
    faults.strike(settings, "set", arguments.names[0])
    library = Library(settings.home)
    library.collect(noise=settings["garbage_noise"])
    machine = library.find(arguments.names[0])
    config = machine.config()
    if cpu:
        _at_least(cpu, config["cpuCountMin"], "CPU cores")
        config["cpuCount"] = cpu
    if memory:
        _at_least(memory, config["memorySizeMin"] // 1024**2, "MB of memory")
        config["memorySize"] = memory * 1024**2
    if display := arguments.value("--display"):
        width, _, height = display.removesuffix("pt").removesuffix("px").partition("x")
        config["display"] = {"width": int(width), "height": int(height)}
    if arguments.flag("--random-mac"):
        config["macAddress"] = random_mac()
    if arguments.flag("--random-serial"):
        config["ecid"] = secrets.token_urlsafe(48)
    machine.write(config)
    if size:
        now = machine.disk_bytes()
        if size * GIGABYTE < now:
            raise Failure(
                f"new disk size of {size} GB should be larger than the current disk size of "
                f"{now // GIGABYTE} GB"
            )
        machine.resize(size * GIGABYTE)
    return 0


def _at_least(value: int, minimum: int, what: str) -> None:
    if value < minimum:
        raise Failure(
            f"LessThanMinimalResourcesError: VM should have {minimum} {what} at minimum "
            f"(requested {value})",
            prefix=True,
        )


def rename(settings: Settings, argv: list[str]) -> int:
    old, new = parse(argv, {}, ["name", "new-name"]).names
    faults.strike(settings, "rename", old)
    if is_remote(new):
        raise Usage("<new-name> should be a local name")
    library = Library(settings.home)
    if not library.at(old).exists():
        raise Usage(f"failed to rename a non-existent local VM: {old}")
    if library.at(new).exists():
        raise Usage(f"failed to rename VM {old}, target VM {new} already exists, delete it first!")
    library.collect(noise=settings["garbage_noise"])
    os.rename(library.at(old).path, library.at(new).path)
    return 0
