"""Checks of files that go in and come out."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path
from typing import Final

from claw_core import archive, unpack
from claw_core.capture import Capture
from claw_core.errors import ClawError
from claw_core.testing.contract.stage import Stage
from claw_core.testing.contract.verdict import Broken, about


@about("upload")
async def files_go_in_and_come_out(stage: Stage) -> None:
    """A tree that is uploaded and downloaded again is the same tree."""
    source, target = stage.case.directory / "tree", stage.case.directory / "back"
    (source / "empty").mkdir(parents=True)
    (source / "data").write_bytes(bytes(range(256)) * 4096)
    (source / "tool").write_text("#!/bin/sh\necho it runs\n")
    (source / "tool").chmod(0o755)
    (source / "a name\twith 'odd' characters").write_text("")
    (source / "link").symlink_to("data")
    target.mkdir()
    async with stage.instance() as live:
        # Below a directory that does not exist yet.
        place = f"{await live.home()}/new"
        chunks = archive.pack(source, "tree", lambda _: None)
        await live.runtime.upload(live.instance, chunks, place)
        done = await live.run(f"{place}/tree/tool")
        if done.out != b"it runs\n":
            raise Broken(f"a program that was uploaded: {done}")
        final = target / "tree"
        async with unpack.unpacking(final, "tree") as sink:
            await live.runtime.download(live.instance, f"{place}/tree", sink)
    if (sent := _tree(source)) != (got := _tree(final)):
        raise Broken(f"sent {sent}, and got {got}", hook="download")


@about("download")
async def what_is_not_there_is_not_downloaded(stage: Stage) -> None:
    """A download of what is not there fails with a ClawError, and the instance works on."""
    async with stage.instance() as live:
        try:
            await live.runtime.download(live.instance, "/no/such/file", Capture())
        except ClawError:
            pass
        else:
            raise Broken("it says that it has sent /no/such/file, which does not exist")
        await live.works_on("a download that failed")


@about("upload")
async def what_an_instance_links_to_stays_its_own(stage: Stage) -> None:
    """Through links in an instance nothing gets to, or from, what its commands cannot reach."""
    outside, canary = stage.case.directory / "outside", secrets.token_hex(16)
    outside.mkdir()
    outside.chmod(0o777)
    (outside / "secret").write_text(canary)
    source = stage.case.directory / "sent"
    source.write_text("sent")
    async with stage.instance() as live:
        trap = f"{await live.home()}/trap"
        done = await live.run(f"ln -s {outside} {trap}; cat {trap}/secret; echo > {trap}/written")
        if canary.encode() in done.out or (outside / "written").exists():
            return  # it shares the host's files anyway
        for target in (trap, f"{trap}/new"):
            with contextlib.suppress(ClawError):
                chunks = archive.pack(source, "sent", lambda _: None)
                await live.runtime.upload(live.instance, chunks, target)
        if left := sorted(path.name for path in outside.iterdir() if path.name != "secret"):
            raise Broken(f"an upload through a link has made {left} on the host")
        for wanted in (f"{trap}/secret", trap):
            got = Capture()
            with contextlib.suppress(ClawError):
                await live.runtime.download(live.instance, wanted, got)
            if canary.encode() in got.data:
                raise Broken(
                    "a download through a link has read a file of the host", hook="download"
                )


def _tree(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[name] = "directory"
        else:
            executable = bool(path.stat().st_mode & 0o100)
            found[name] = hash(path.read_bytes()), executable
    return found


CHECKS: Final = (
    files_go_in_and_come_out,
    what_is_not_there_is_not_downloaded,
    what_an_instance_links_to_stays_its_own,
)
