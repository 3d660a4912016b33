"""Keeps the disk of an instance that runs, as an image that later instances can start from.

`container export` would not do: most versions export only what has ended, and an instance that has
ended is gone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from claw_core.errors import RuntimeFault
from claw_core.model import IO, Command, Image, SnapshotTarget, Spec
from claw_core.tasks import in_thread
from claw_runtime_apple import images
from claw_runtime_apple.commands import Running
from claw_runtime_apple.container import SCRATCH, TEMPORARY
from claw_runtime_apple.layout import Layout
from claw_runtime_apple.place import Place
from claw_runtime_apple.scripts import PACK


async def keep(place: Place, image: str, target: SnapshotTarget) -> str:
    """Make an image of the disk that starts as the one that it came from, and return its name.

    Nothing that is mounted is in it, nor `/tmp`, and no secret, as these are in no file. What later
    instances start from has nothing of scratch space at all.

    Args:
        place: the instance.
        image: what it came from.
        target: what is made.

    Raises:
        RuntimeFault: it could not be made; there is no half image.
    """
    name = images.name_of(place.container, target)
    like = images.configuration(await images.find(place.cli, image))
    without = SCRATCH if isinstance(target, Image) else (TEMPORARY,)
    with tempfile.TemporaryDirectory(prefix="claw-") as folder:
        layout = await in_thread(Layout.begin, Path(folder) / "image.tar")
        try:
            for directory in without:
                await in_thread(layout.directory, directory, 0o1777)
            await _pack(place, layout, without)
            whole = images.whole_name(name)
            await in_thread(layout.finish, whole, like, f"snapshot of {place.container}")
        finally:
            await in_thread(layout.close)
        await place.cli.call("image", "load", "-i", str(layout.path), timeout=images.LOAD_TIMEOUT)
    return name


async def _pack(place: Place, layout: Layout, without: tuple[str, ...]) -> None:
    errors = bytearray()

    async def write(data: bytes) -> None:
        await in_thread(layout.write, data)

    async def keep_errors(data: bytes) -> None:
        errors.extend(data[: max(0, 4096 - len(errors))])

    command = Command(("sh", "-c", PACK, "sh", *without), workdir="/")
    ended = await Running(place.as_root(), command).run(Spec(), IO(None, write, keep_errors))
    if ended.code:
        raise RuntimeFault(
            f"the disk could not be packed: {errors.decode(errors='replace').strip()}",
            remedy="see what it says; the image needs `tar`",
        )
