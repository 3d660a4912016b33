"""All machines of a `TART_HOME`, what is being made in `tmp`, and its garbage collection."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import uuid

from simulators.tart import errors, locks
from simulators.tart.machine import Machine


def is_remote(name: str) -> bool:
    return "/" in name


class Library:
    """The content of a `TART_HOME`."""

    def __init__(self, home: str) -> None:
        self.home = home
        self.folder = os.path.join(home, "vms")
        self.temporary = os.path.join(home, "tmp")
        for path in (self.folder, self.temporary, os.path.join(home, "cache", "OCIs")):
            os.makedirs(path, exist_ok=True)

    def at(self, name: str) -> Machine:
        """The place of a local machine, whether or not there is one."""
        return Machine(os.path.join(self.folder, name))

    def find(self, name: str) -> Machine:
        """A machine that exists, local or in the cache of images.

        Raises:
            Failure: it does not exist.
        """
        machine = self.image(name) if is_remote(name) else self.at(name)
        if not machine.exists():
            raise errors.missing(name)
        return machine

    def image(self, name: str) -> Machine:
        """The place of an image in the cache; a tag is a link to a digest."""
        path, _, tag = name.partition("@") if "@" in name else name.rpartition(":")
        if not path:
            path, tag = name, "latest"
        machine = Machine(os.path.join(self.home, "cache", "OCIs", path, tag))
        machine.name = name
        return machine

    def machines(self) -> list[Machine]:
        """Every local machine that exists, by name."""
        found = (self.at(name) for name in sorted(os.listdir(self.folder)))
        return [machine for machine in found if machine.exists()]

    def images(self) -> list[Machine]:
        """Every image in the cache, by name."""
        root = os.path.join(self.home, "cache", "OCIs")
        found = []
        for folder, folders, _ in os.walk(root):
            for name in folders:
                machine = Machine(os.path.join(folder, name))
                if machine.exists():
                    sign = "@" if name.startswith("sha256:") else ":"
                    machine.name = os.path.relpath(folder, root) + sign + name
                    found.append(machine)
        return sorted(found, key=lambda machine: machine.name)

    def draft(self) -> tuple[Machine, int]:
        """A new directory in `tmp`, and the descriptor that keeps it from being collected.

        Between its creation and its lock another call may collect it, as in Tart.
        """
        path = os.path.join(self.temporary, str(uuid.uuid4()).upper())
        os.mkdir(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except FileNotFoundError:
            raise errors.no_file(os.path.basename(path)) from None
        return Machine(path), descriptor

    def publish(self, draft: Machine, name: str) -> None:
        """Put a draft in its place; a machine that is there goes, even one that runs."""
        target = self.at(name).path
        if os.path.lexists(target):
            old = os.path.join(self.temporary, f"{uuid.uuid4()}")
            os.rename(target, old)
            os.rename(draft.path, target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(draft.path, target)

    def collect(self, *, noise: bool = False) -> None:
        """Remove every entry of `tmp` that nobody holds."""
        for name in os.listdir(self.temporary):
            path = os.path.join(self.temporary, name)
            try:
                abandoned = not os.path.isdir(path) or locks.free(path)
            except FileNotFoundError:
                noise = True
                continue
            if abandoned:
                shutil.rmtree(path, ignore_errors=True)
        if noise:
            what = f"failed to lock file://{self.temporary}/: No such file or directory"
            print(f'Failed to perform garbage collection: Failed("{what}")', file=sys.stderr)
