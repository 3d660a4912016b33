"""`tart clone`: copies a machine to a name, whatever has that name."""

from __future__ import annotations

import os
import shutil
import time

from simulators.tart import disk, errors, faults, locks, pull
from simulators.tart.arguments import FLAG, VALUE, parse
from simulators.tart.errors import Usage
from simulators.tart.library import Library, is_remote
from simulators.tart.machine import CONTENT, STATE, Machine, random_mac
from simulators.tart.settings import Settings

OPTIONS = {"--insecure": FLAG, "--concurrency": VALUE, "--prune-limit": VALUE}


def clone(settings: Settings, argv: list[str]) -> int:
    options = dict(OPTIONS)
    if settings.version > (2, 35):
        options["--stacked"] = FLAG
    arguments = parse(argv, options, ["source-name", "new-name"])
    source_name, name = arguments.names
    if is_remote(name):
        raise Usage("<new-name> should be a local name")
    library = Library(settings.home)
    if is_remote(source_name):
        pull.fetch(settings, library, source_name)
    source = library.find(source_name)
    hit = faults.strike(settings, "clone", name)
    draft, held = library.draft()
    with locks.directory(settings.home):
        if stuck := hit.get("hang with lock"):
            time.sleep(stuck.get("seconds", 1e6))
        faults.fail(hit, "clone")
        if "source gone" in hit:
            shutil.rmtree(source.path)
        if "prunes" in hit and "TART_NO_AUTO_PRUNE" not in os.environ:
            for image in library.images():
                shutil.rmtree(image.path)
        copy(settings, library, source, draft)
        if "killed before" in hit:
            faults.die()
        library.publish(draft, name)
        if "killed after" in hit:
            faults.die()
    os.close(held)
    return 0


def copy(settings: Settings, library: Library, source: Machine, draft: Machine) -> None:
    """Copy all that makes a machine; a MAC that a local machine has is not used twice.

    Raises:
        Failure: something went away.
    """
    config = source.config()
    taken = any(
        other.config()["macAddress"] == config["macAddress"] for other in library.machines()
    )
    if taken and not source.suspended():
        config["macAddress"] = random_mac()
    time.sleep(settings["t_clone"])
    guests = os.path.join(settings.host, "guests")
    try:
        size = source.disk_bytes()
        draft.write(config)
        shutil.copy(source.file("nvram.bin"), draft.file("nvram.bin"))
        with locks.directory(guests):
            disk.copy(source.file(CONTENT), draft.file(CONTENT))
        if source.suspended():
            shutil.copy(source.file(STATE), draft.file(STATE))
        draft.resize(size)
    except OSError as error:
        raise errors.no_file(os.path.basename(str(error.filename or "disk.img"))) from None
