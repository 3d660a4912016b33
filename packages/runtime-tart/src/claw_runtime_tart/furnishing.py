"""Puts the mounts of an instance where they were asked for, and brings back what was copied in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Final

import attrs

from claw_core import archive
from claw_core.errors import RuntimeFault
from claw_core.host import Host
from claw_core.model import IO, Mount, Sink
from claw_core.tasks import in_thread
from claw_runtime_tart import guest, returning
from claw_runtime_tart.reached import Reached, drop
from claw_runtime_tart.shares import Shares, parent, within

STALL: Final = 60.0
"""Seconds without a byte of what is brought back."""
_PACK: Final = """
export COPYFILE_DISABLE=1
cd {directory} || exit 1
tool=$("$@" tar --version 2>/dev/null)
case $tool in
bsdtar*) set -- "$@" tar --no-mac-metadata --no-read-sparse ;;
*) set -- "$@" tar ;;
esac
"$@" -c -f - -- {name}
code=$?
case $code-$tool in
1-*GNU*) exit 0 ;;
esac
exit $code
"""
"""Without files for macOS' own attributes, and without holes in files, which few can unpack. A file
that changes while it is read is no failure."""
_AS_ROOT: Final = "sudo -n true </dev/null >/dev/null 2>&1 && set -- sudo -n"
"""What a command made for somebody else is brought back as well."""


@attrs.define(eq=False)
class Furniture:
    """The mounts of one instance in its guest.

    Attributes:
        shares: how they get there.
        places: where those are that are not where they were asked for.
    """

    shares: Shares
    places: Mapping[str, str] = attrs.field(factory=dict)
    _states: dict[Mount, int] = attrs.field(factory=dict)
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
            if mount.writable:
                self._states[mount] = await in_thread(returning.state, mount.source)
            chunks = archive.pack(mount.source, name, host.notice)
            program = f"exec tar -x -o -f - -C {guest.quote(directory)}"
            what = f"copy {mount.source} into the guest"
            await reached.transfer(program, IO(chunks, drop, drop), what)

    async def send(self, reached: Reached, source: str, sink: Sink) -> None:
        """Send a path of the guest as a tar stream.

        Raises:
            RuntimeFault: it cannot be packed.
        """
        await reached.transfer(self._pack(source), IO(None, sink, drop), f"pack {source}")

    async def receive(self, reached: Reached, chunks: AsyncIterator[bytes], target: str) -> None:
        """Unpack a tar stream below a directory of the guest, which is created where missing.

        Raises:
            RuntimeFault: it cannot be unpacked.
        """
        directory = guest.quote(self.find(target) or target)
        program = f"mkdir -p -- {directory} && exec tar -x -o -f - -C {directory}"
        await reached.transfer(program, IO(chunks, drop, drop), f"unpack into {target}")

    async def bring_back(self, reached: Reached, host: Host) -> None:
        """Put what the guest has made of writable copies in the place of the originals.

        Raises:
            ArchiveError: what the guest sends is damaged or unsafe.
            RuntimeFault: one was not brought back, and is as it was.
        """
        async with self._returning:
            for mount in self._states:
                await self._return(reached, host, mount)

    async def _return(self, reached: Reached, host: Host, mount: Mount) -> None:
        source = mount.source

        async def download(sink: Sink) -> None:
            loop = asyncio.get_running_loop()

            async def renewed(data: bytes) -> None:
                await sink(data)
                timer.reschedule(loop.time() + STALL)

            program = _AS_ROOT + self._pack(mount.target)
            async with asyncio.timeout(STALL) as timer:
                await reached.transfer(program, IO(None, renewed, drop), f"pack {mount.target}")

        name = self._parent(mount.target)[1]
        try:
            done = await returning.replace(source, self._states[mount], name, download)
        except TimeoutError:
            raise RuntimeFault(
                f"{source} was not brought back: nothing came from the guest for {STALL:g} s",
                remedy="it is as it was before the command",
            ) from None
        except OSError as error:
            raise RuntimeFault(
                f"{source} was not brought back: {error}",
                remedy="it is as it was before the command; see whether its directory is writable",
            ) from error
        self._states[mount] = done.state
        if done.kept is not None:
            host.notice(f"{source} was changed while the command ran; as it was it is {done.kept}")

    def _pack(self, source: str) -> str:
        directory, name = self._parent(source)
        return _PACK.format(directory=guest.quote(directory), name=guest.quote(name))

    def _parent(self, path: str) -> tuple[str, str]:
        return parent(self.find(path) or path)
