"""Puts the mounts of an instance where they were asked for, and brings back what was copied in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import attrs

from claw_core import archive
from claw_core.errors import RuntimeFault
from claw_core.host import Host
from claw_core.model import IO, Mount, Sink
from claw_runtime_tart import guest, returning
from claw_runtime_tart.reached import Reached, drop
from claw_runtime_tart.shares import Shares, parent, within


@attrs.define(eq=False)
class Furniture:
    """The mounts of one instance in its guest.

    Attributes:
        shares: how they get there.
        places: where those are that are not where they were asked for.
    """

    shares: Shares
    places: Mapping[str, str] = attrs.field(factory=dict)
    _returning: asyncio.Lock = attrs.field(factory=asyncio.Lock)

    def find(self, path: str | None) -> str | None:
        """Where a path of the instance is in the guest."""
        return within(path, self.places)

    async def place(self, reached: Reached, host: Host, system: str) -> None:
        """Put everything in its place.

        Raises:
            RuntimeFault: the guest does not have it there.
        """
        asked = self.shares.order()
        if not asked:
            return
        said = await reached.ask(self.shares.program(system), "put the mounts in place")
        places = said.decode(errors="replace").splitlines()
        if len(places) != len(asked):
            raise RuntimeFault("the guest does not say where its mounts are")
        found = zip(asked, places, strict=True)
        self.places = {mount.target: place for mount, place in found if mount.target != place}
        for target, place in self.places.items():
            host.progress(f"{target} is at {place}")
        for mount in self.shares.copied:
            directory, name = self._parent(mount.target)
            chunks = archive.pack(mount.source, name, host.progress)
            program = f"exec tar -x -o -f - -C {guest.quote(directory)}"
            what = f"copy {mount.source} into the guest"
            await reached.transfer(program, IO(chunks, drop, drop), what)

    async def send(self, reached: Reached, source: str, sink: Sink) -> None:
        """Send a path of the guest as a tar stream, without files for macOS' own attributes.

        Raises:
            RuntimeFault: it cannot be packed.
        """
        directory, name = self._parent(source)
        program = (
            f"export COPYFILE_DISABLE=1; cd {guest.quote(directory)} && "
            f"exec tar -c -f - -- {guest.quote(name)}"
        )
        await reached.transfer(program, IO(None, sink, drop), f"pack {source}")

    async def bring_back(self, reached: Reached) -> None:
        """Put what the guest has made of writable copies in the place of the originals.

        Raises:
            RuntimeFault: one was not brought back, and is as it was.
        """
        async with self._returning:
            for mount in self.shares.copied:
                if mount.writable:
                    await self._return(reached, mount)

    async def _return(self, reached: Reached, mount: Mount) -> None:
        async def download(sink: Sink) -> None:
            await self.send(reached, mount.target, sink)

        try:
            await returning.replace(mount.source, self._parent(mount.target)[1], download)
        except OSError as error:
            raise RuntimeFault(
                f"{mount.source} was not brought back: {error}",
                remedy="it is as it was before the command; see whether its directory is writable",
            ) from error

    def _parent(self, path: str) -> tuple[str, str]:
        return parent(self.find(path) or path)
