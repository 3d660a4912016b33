"""`tart delete`: one machine after the other, until one cannot be deleted."""

from __future__ import annotations

import os
import shutil

from simulators.tart import errors, faults, locks
from simulators.tart.arguments import parse
from simulators.tart.errors import Failure
from simulators.tart.library import Library
from simulators.tart.settings import Settings


def delete(settings: Settings, argv: list[str]) -> int:
    names = parse(argv, {}, ["name..."]).names
    library = Library(settings.home)
    library.collect(noise=settings["garbage_noise"])
    for name in names:
        machine = library.find(name)
        hit = faults.strike(settings, "delete", name)
        if "is running" in hit:
            raise running(settings, name)
        held = locks.take(machine.file("config.json"))
        if held is None:
            raise running(settings, name)
        if "half" in hit:
            os.unlink(machine.file("config.json"))
            os.unlink(machine.file("nvram.bin"))
            raise errors.no_file("nvram.bin")
        shutil.rmtree(machine.path)
        os.close(held)
    return 0


def running(settings: Settings, name: str) -> Failure:
    """What is said of a machine that runs; one of the two dialects takes it for missing."""
    if settings["delete_running"] == 2:
        return errors.missing(name)
    return Failure(f'VM "{name}" is running')
