"""`tart pull`: brings an image of a registry into the cache."""

from __future__ import annotations

import os

from simulators.tart import disk, faults, locks
from simulators.tart.arguments import FLAG, VALUE, parse
from simulators.tart.errors import Failure
from simulators.tart.library import Library, is_remote
from simulators.tart.settings import Settings


def pull(settings: Settings, argv: list[str]) -> int:
    options = {"--insecure": FLAG, "--concurrency": VALUE, "--deduplicate": FLAG}
    (name,) = parse(argv, options, ["remote-name"]).names
    faults.strike(settings, "pull", name)
    if not is_remote(name):
        print(f'"{name}" is a local image, nothing to pull here!')
        return 0
    fetch(settings, Library(settings.home), name)
    return 0


def fetch(settings: Settings, library: Library, name: str) -> None:
    """Copy an image into the cache, one of each registry at a time, unless it is there.

    Raises:
        Failure: the registry does not have it.
    """
    target = library.image(name)
    registry = os.path.join(settings.home, "cache", "OCIs", name.split("/")[0])
    os.makedirs(registry, exist_ok=True)
    if not locks.free(registry):
        print("waiting for lock...", flush=True)
    with locks.directory(registry):
        if target.exists():
            return
        made = settings.images.get(name)
        if made is None:
            raise Failure("unexpected HTTP status code 404 when fetching a manifest", prefix=True)
        print("pulling manifest...")
        print("pulling disk (16.0 GB compressed)...")
        print("0%", "100%", sep="\n")
        print("pulling NVRAM...", flush=True)
        os.makedirs(os.path.dirname(target.path), exist_ok=True)
        disk.copy(made, target.path)


def fqn(settings: Settings, argv: list[str]) -> int:
    (name,) = parse(argv, {}, ["name"]).names
    faults.strike(settings, "fqn", name)
    print(name)
    return 0
