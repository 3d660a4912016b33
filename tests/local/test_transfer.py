"""Files go in and come out as tar streams, without a tar in the instance, in both engines."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from claw_core.errors import ClawError
from claw_core.model import Exit
from local import support
from local.support import chunks, run, session


@pytest.fixture(params=support.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def archive(*members: tuple[str, dict[str, object]]) -> AsyncIterator[bytes]:
    """A stream of members: a name, and attributes of TarInfo beside `data`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, attributes in members:
            info = tarfile.TarInfo(name)
            data = attributes.pop("data", b"")
            assert isinstance(data, bytes)
            for key, value in attributes.items():
                setattr(info, key, value)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    data = buffer.getvalue()
    return chunks(*(data[at : at + 70_001] for at in range(0, len(data), 70_001)))


async def download(there: support.Session, source: str) -> tarfile.TarFile:
    output = support.Output()
    await there.backend.download(there.instance, source, output.stdout)
    return tarfile.open(fileobj=io.BytesIO(bytes(output.out)))


def test_five_thousand_files_go_in_and_come_out(engine: str) -> None:
    members = [
        (f"tree/{n // 100}/{n}", {"data": f"file {n}".encode(), "mtime": 1_000_000_000 + n})
        for n in range(5000)
    ]

    async def main() -> None:
        async with session(engine) as there:
            started = time.monotonic()
            await there.backend.upload(there.instance, archive(*members), "in")
            assert time.monotonic() - started < 10
            _, text = await there.run("sh", "-c", "find ~/in -type f | wc -l; cat ~/in/tree/7/777")
            assert text == "5000\nfile 777"
            with await download(there, "in/tree") as back:
                files = {one.name: one for one in back.getmembers() if one.isfile()}
                assert len(files) == 5000
                assert files["tree/7/777"].mtime == 1_000_000_777
                assert {one.name.split("/")[0] for one in back.getmembers()} == {"tree"}

    run(main())


def test_modes_times_links_and_names_are_kept(engine: str) -> None:
    members: tuple[tuple[str, dict[str, object]], ...] = (
        ("run", {"data": b"#!/bin/sh\necho ran\n", "mode": 0o4755, "mtime": 1_234_567_890}),
        ("link", {"type": tarfile.SYMTYPE, "linkname": "run"}),
        ("away", {"type": tarfile.SYMTYPE, "linkname": "/usr/bin/env"}),
        (
            "hard",
            {"type": tarfile.LNKTYPE, "linkname": "run", "mode": 0o755, "mtime": 1_234_567_890},
        ),
        ("closed", {"type": tarfile.DIRTYPE, "mode": 0o555}),
        ("closed/file", {"data": b"x", "mode": 0o400}),
        ("é ü/ß" + "x" * 200, {"data": b"unicode"}),
    )

    async def main() -> None:
        async with session(engine) as there:
            await there.backend.upload(there.instance, archive(*members), "in")
            program = "cd ~/in; ./link; stat -c '%a %Y' run hard closed; readlink away; cat é*/*"
            ended, text = await there.run("sh", "-c", program)
            if engine == "namespaces" or os.geteuid() != 0:
                assert ended == Exit(0)
            lines = text.splitlines()
            assert lines[0] == "ran"
            assert lines[1] == lines[2] == "755 1234567890"
            assert lines[3].startswith("555 ")
            assert lines[4] == "/usr/bin/env"
            assert lines[5] == "unicode"
            with await download(there, "in") as back:
                assert back.getmember("in/link").linkname == "run"
                assert back.getmember("in/run").mode & 0o7777 == 0o755

    run(main())


def test_what_is_there_is_replaced_and_not_written_through(engine: str) -> None:
    async def main() -> None:
        async with session(engine) as there:
            prepare = (
                "mkdir in; echo keep > kept; ln -s ../kept in/a; ln -s .. in/d; echo old > in/b"
            )
            assert (await there.run("sh", "-c", f"cd ~; {prepare}"))[0] == Exit(0)
            members: tuple[tuple[str, dict[str, object]], ...] = (
                ("a", {"data": b"new"}),
                ("b", {"data": b"new"}),
                ("d", {"type": tarfile.DIRTYPE, "mode": 0o755}),
                ("d/kept", {"data": b"new"}),
            )
            await there.backend.upload(there.instance, archive(*members), "in")
            _, text = await there.run("sh", "-c", "cd ~; cat kept in/a in/b in/d/kept")
            assert text == "keep\nnewnewnew"

    run(main())


ESCAPES: dict[str, tuple[tuple[str, dict[str, object]], ...]] = {
    "parent": (("../out", {"data": b"x"}),),
    "middle": (("a/../../out", {"data": b"x"}),),
    "absolute": (("/tmp/out", {"data": b"x"}),),
    "dots": (("a/..", {"data": b"x"}),),
    "link": (
        ("a", {"type": tarfile.SYMTYPE, "linkname": ".."}),
        ("a/out", {"data": b"x"}),
    ),
    "late link": (
        ("a/b", {"data": b"x"}),
        ("a", {"type": tarfile.SYMTYPE, "linkname": ".."}),
        ("a/out", {"data": b"x"}),
    ),
    "hard link": (("a", {"type": tarfile.LNKTYPE, "linkname": "../kept"}),),
    "hard link through link": (
        ("l", {"type": tarfile.SYMTYPE, "linkname": "../kept"}),
        ("a", {"type": tarfile.LNKTYPE, "linkname": "l"}),
    ),
    "device": (("a", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),),
}


@pytest.mark.parametrize("kind", ESCAPES)
def test_members_cannot_leave_the_target(kind: str) -> None:
    members = tuple((name, dict(attributes)) for name, attributes in ESCAPES[kind])

    async def main() -> None:
        async with session() as there:
            await there.run("sh", "-c", "echo keep > ~/kept")
            with pytest.raises(ClawError, match="cannot unpack"):
                await there.backend.upload(there.instance, archive(*members), "in")
            _, text = await there.run("sh", "-c", "cd ~; ls -d out /tmp/out; cat kept")
            assert text.startswith("keep\n")

    run(main())


def test_what_is_no_archive_is_said(engine: str) -> None:
    async def main() -> None:
        async with session(engine) as there:
            with pytest.raises(ClawError, match="cannot unpack"):
                await there.backend.upload(there.instance, chunks(b"no tar" * 1000), "in")
            with pytest.raises(ClawError, match="cannot unpack"):
                await there.backend.upload(there.instance, archive(("a", {"data": b"x"})), "/usr/x")
            for missing in ("missing", "/no/such"):
                with pytest.raises(ClawError, match="cannot pack"):
                    await download(there, missing)
            assert await there.run("true") == (Exit(0), "")

    run(main())


def test_unreadable_files_fail_the_download_and_odd_names_work(engine: str) -> None:
    async def main() -> None:
        async with session(engine) as there:
            await there.run("sh", "-c", "cd ~; mkdir d; echo x > d/f; mkfifo d/p")
            for source, name in (("d/", "d"), ("./d/.", "d"), ("d/../d", "d")):
                with await download(there, source) as back:
                    assert back.getnames()[0] == name, source
            await there.run("sh", "-c", "chmod 0 ~/d/f")
            with pytest.raises(ClawError, match="cannot pack"):
                await download(there, "d")

    run(main())


@pytest.mark.parametrize("where", ["upload", "download"])
def test_a_cancelled_transfer_leaves_no_process(where: str) -> None:
    import asyncio

    async def endless() -> AsyncIterator[bytes]:
        info = tarfile.TarInfo("big")
        info.size = 1 << 40
        yield info.tobuf()
        while True:
            yield bytes(1 << 16)
            await asyncio.sleep(0.001)

    async def never(data: bytes) -> None:
        await asyncio.sleep(600)

    async def main() -> None:
        async with session() as there:
            await there.run("sh", "-c", "head -c 8M /dev/zero > ~/big")
            # The launcher and the first process; the supervisor of that command ends just now.
            alone: Callable[[], bool] = lambda: len(support.marked(there.instance.name)) == 2  # noqa: E731
            assert support.eventually(alone, 2)
            work: asyncio.Task[None] = asyncio.create_task(
                there.backend.upload(there.instance, endless(), "in")
                if where == "upload"
                else there.backend.download(there.instance, "big", never)
            )
            await asyncio.sleep(0.3)
            assert not work.done()
            assert not alone()
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert support.eventually(alone, 2)

    run(main())


def test_the_hosts_files_are_not_touched_by_names(tmp_path: Path) -> None:
    async def main() -> None:
        async with session() as there:
            await there.backend.upload(
                there.instance, archive(("f", {"data": b"x"})), str(tmp_path / "in")
            )

    run(main())  # a place of that name is made in the sandbox
    assert os.listdir(tmp_path) == []
