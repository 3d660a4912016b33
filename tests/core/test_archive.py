"""Archives both ways: what is packed, what is refused, and that refusing leaves nothing."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from claw_core import archive
from claw_core.errors import ArchiveError, ConfigError
from claw_core.staging import Stage
from claw_core.unpack import unpacking


def packed(source: Path, name: str | None = None, notices: list[str] | None = None) -> bytes:
    async def main() -> bytes:
        notice = archive.ignore if notices is None else notices.append
        return b"".join([chunk async for chunk in archive.pack(source, name, notice)])

    return asyncio.run(main())


def unpacked(
    data: bytes, final: Path, name: str = "top", *, step: int = 1 << 20, **limits: Any
) -> None:
    async def main() -> None:
        async with unpacking(final, name, **limits) as sink:
            for start in range(0, len(data), step):
                await sink(data[start : start + step])

    asyncio.run(main())


def member(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", content: bytes = b""
) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content)
    info.mode = 0o6777
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def tar(*members: bytes) -> bytes:
    return b"".join(members) + bytes(1024)


TOP = member("top", tarfile.DIRTYPE)


def test_what_the_dead_have_left_goes_with_the_next(tmp_path: Path) -> None:
    living = Stage(tmp_path)
    living.open()
    (living.path / "file").touch()
    dead = tmp_path / ".claw-0123456789abcdef.partial"
    (dead / "deep").mkdir(parents=True)
    for name in (".claw-0.partial", ".claw-0123456789abcdeg.partial"):
        (tmp_path / name).mkdir()
    (tmp_path / ".claw-fedcba9876543210.partial").symlink_to(tmp_path / "..")
    before = set(os.listdir(tmp_path))
    unpacked(tar(TOP), tmp_path / "final")
    assert set(os.listdir(tmp_path)) == (before - {dead.name}) | {"final"}
    assert os.listdir(living.path) == ["file"]
    living.close()
    living.close()
    assert not living.path.exists()


def test_a_stage_goes_whatever_may_be_written_in_it(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from claw_core.staging import Stage\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "stage = Stage(Path(sys.argv[1])); stage.open()\n"
        "(stage.path / 'deep' / 'inner').mkdir(parents=True); (stage.path / 'deep/file').touch()\n"
        "(stage.path / 'out').symlink_to('/tmp')\n"
        "os.chmod(stage.path / 'deep/inner', 0); os.chmod(stage.path / 'deep', 0o500)\n"
        "stage.close(); print(os.listdir(sys.argv[1]))\n"
    )
    for folder in tmp_path.parents[:3]:
        folder.chmod(folder.stat().st_mode | 0o755)
    tmp_path.chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], check=True, capture_output=True
    )
    assert done.stdout == b"[]\n"


def test_a_tree_is_taken_as_it_is(tmp_path: Path) -> None:
    data = tar(
        TOP,
        member("top/out", tarfile.SYMTYPE, "/etc/passwd"),
        member("top/up", tarfile.SYMTYPE, "../.."),
        member("top/fifo", tarfile.FIFOTYPE),
        member("top/device", tarfile.CHRTYPE),
        member("top/out", tarfile.SYMTYPE, "/etc"),
        member("top/file", content=b"here"),
    )
    unpacked(data, tmp_path / "final", as_is=True)
    assert sorted(os.listdir(tmp_path / "final")) == ["file", "out", "up"]
    assert os.readlink(tmp_path / "final" / "out") == "/etc"
    for bad in (
        tar(member("top", tarfile.SYMTYPE, "/etc")),
        tar(TOP, member("top/out", tarfile.SYMTYPE, "/etc"), member("top/out/x")),
        tar(TOP, member("top/../x")),
        tar(member("top", tarfile.FIFOTYPE)),
    ):
        with pytest.raises(ArchiveError):
            unpacked(bad, tmp_path / "bad", as_is=True)
        assert os.listdir(tmp_path) == ["final"]


def test_a_tree_survives_the_round_trip(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "empty").mkdir(parents=True)
    (source / ("long" * 50)).mkdir()
    (source / ("long" * 50) / ("name" * 50)).write_text("deep")
    (source / "new\nline ü").write_bytes(b"x" * 1025)
    (source / os.fsdecode(b"\xff\xfe")).write_bytes(b"")
    (source / "tool").write_text("#!/bin/sh\n")
    (source / "tool").chmod(0o755)
    (source / "link").symlink_to("tool")
    (source / "dangling").symlink_to("not/there")
    os.utime(source / "tool", (1_000_000_000, 1_000_000_000))
    os.utime(source / "empty", (1_000_000_001, 1_000_000_001))
    unpacked(packed(source, "top"), tmp_path / "copy", step=700)
    copy = tmp_path / "copy"
    assert sorted(os.listdir(os.fsencode(copy))) == sorted(os.listdir(os.fsencode(source)))
    assert (copy / ("long" * 50) / ("name" * 50)).read_text() == "deep"
    assert (copy / "new\nline ü").read_bytes() == b"x" * 1025
    assert (copy / "tool").stat().st_mode & 0o777 == 0o755
    assert (copy / "tool").stat().st_mtime == 1_000_000_000
    assert (copy / "empty").stat().st_mtime == 1_000_000_001
    assert os.readlink(copy / "link") == "tool"
    assert os.readlink(copy / "dangling") == "not/there"


def test_other_tars_read_what_is_packed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    (source / "file").chmod(0o4755)
    (source / ("n" * 150)).symlink_to("t" * 150)
    with tarfile.open(fileobj=io.BytesIO(packed(source))) as opened:
        members = {info.name: info for info in opened}
    assert set(members) == {"source", "source/file", "source/" + "n" * 150}
    info = members["source/file"]
    assert (info.uid, info.gid, info.uname, info.gname, info.mode) == (0, 0, "", "", 0o755)
    assert members["source/" + "n" * 150].linkname == "t" * 150


def test_a_file_alone_can_be_packed_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    unpacked(packed(tmp_path / "file", "top"), tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "content"


@pytest.mark.parametrize("name", [".", "..", "a/b", "a\0b"])
def test_a_name_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        archive.pack(tmp_path, name)
    with pytest.raises(ConfigError):
        archive.destination(tmp_path, name)


def test_what_cannot_be_packed_at_all_is_said_before_streaming(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    for name, reason in (("absent", "No such file"), ("fifo", "neither"), ("link", "symbolic")):
        with pytest.raises(ConfigError, match=reason) as caught:
            archive.pack(tmp_path / name)
        assert caught.value.remedy


def test_sockets_and_fifos_are_left_out_with_a_notice(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    os.mkfifo(source / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(source / "socket"))
    (source / "file").write_text("x")
    notices: list[str] = []
    unpacked(packed(source, "top", notices), tmp_path / "copy")
    assert os.listdir(tmp_path / "copy") == ["file"]
    assert [line.split()[0] for line in notices] == [f"{source}/fifo", f"{source}/socket"]


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("x")
    really = os.open

    def refusing(path: str, *args: int, **kwargs: int) -> int:  # root may read everything
        if path == "secret":
            raise PermissionError(13, "Permission denied")
        return really(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(ArchiveError, match=f"{tmp_path}/secret: Permission denied"):
        packed(tmp_path)


@pytest.mark.parametrize("change", [0, 10, 5000])
def test_a_file_that_changes_while_it_is_read_gives_a_valid_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "log").write_bytes(b"x" * 1000)
    (source / "next").write_text("whole")
    really = archive._header

    def header(member: str, found: os.stat_result, kind: bytes, target: str = "") -> bytes:
        if member.endswith("log"):
            os.truncate(source / "log", change)
        return really(member, found, kind, target)

    monkeypatch.setattr(archive, "_header", header)
    notices: list[str] = []
    unpacked(packed(source, "top", notices), tmp_path / "copy")
    assert (tmp_path / "copy" / "log").stat().st_size == 1000
    assert (tmp_path / "copy" / "next").read_text() == "whole"
    assert len(notices) == (change < 1000)


def test_a_directory_swapped_for_a_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("hunter2")
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    really = os.open

    def swapping(path: str, *args: int, **kwargs: int) -> int:
        if path == "inner":
            (source / "inner").rmdir()
            (source / "inner").symlink_to(outside)
        return really(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", swapping)
    with pytest.raises(ArchiveError, match="inner"):
        packed(source)


def test_five_thousand_small_files_are_quick_and_do_not_block_the_loop(tmp_path: Path) -> None:
    for folder in range(50):
        (tmp_path / "source" / str(folder)).mkdir(parents=True)
        for number in range(100):
            (tmp_path / "source" / str(folder) / str(number)).write_bytes(b"x" * 200)

    async def main() -> tuple[float, float]:
        longest, last = 0.0, time.monotonic()
        done = False

        async def watch() -> None:
            nonlocal longest, last
            while not done:
                await asyncio.sleep(0.01)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()

        watching = asyncio.create_task(watch())
        started = time.monotonic()
        async with unpacking(tmp_path / "copy", "source") as sink:
            async for chunk in archive.pack(tmp_path / "source"):
                assert len(chunk) < 2 * archive.CHUNK
                await sink(chunk)
        done = True
        await watching
        return time.monotonic() - started, longest

    seconds, longest = asyncio.run(main())
    assert sum(len(files) for _, _, files in os.walk(tmp_path / "copy")) == 5000
    assert seconds < 30  # half a second on an idle disk; its journal may be busy with other tests
    assert longest < seconds / 2


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def test_a_stream_given_up_half_way_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(8 * archive.CHUNK))

    async def main() -> None:
        before = descriptors()
        chunks = archive.pack(tmp_path)
        await anext(chunks)
        assert descriptors() > before
        await chunks.aclose()  # type: ignore[attr-defined]
        assert descriptors() == before

    asyncio.run(main())


@pytest.mark.parametrize("moment", ["cancelled", "failed"])
def test_a_block_that_does_not_end_well_leaves_nothing(tmp_path: Path, moment: str) -> None:
    (tmp_path / "old").write_text("old")

    async def main() -> None:
        before = descriptors()

        async def work() -> None:
            async with unpacking(tmp_path / "old", "top") as sink:
                await sink(member("top", content=b"x" * 400_000))
                if moment == "failed":
                    raise RuntimeError("backend")
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises((asyncio.CancelledError, RuntimeError)):
            await task
        assert descriptors() <= before + 2  # the loop may have opened its own by now

    asyncio.run(main())
    assert os.listdir(tmp_path) == ["old"]
    assert (tmp_path / "old").read_text() == "old"


EVIL: dict[str, bytes] = {
    "an absolute name": tar(member("/top")),
    "a way up": tar(TOP, member("top/../../evil")),
    "another name": tar(member("evil")),
    "two tops": tar(TOP, member("evil")),
    "below a link": tar(TOP, member("top/l", tarfile.SYMTYPE, "."), member("top/l/x")),
    "below a file": tar(member("top"), member("top/x")),
    "through a replaced directory": tar(
        TOP, member("top/d", tarfile.DIRTYPE), member("top/d", tarfile.SYMTYPE, ".")
    ),
    "an absolute link": tar(TOP, member("top/l", tarfile.SYMTYPE, "/etc/passwd")),
    "a link out": tar(TOP, member("top/l", tarfile.SYMTYPE, "../evil")),
    "a link out and in again": tar(TOP, member("top/l", tarfile.SYMTYPE, "../top")),
    "a link out through another": tar(
        TOP,
        member("top/p/q/d", tarfile.SYMTYPE, "../.."),
        member("top/l", tarfile.SYMTYPE, "p/q/d/../evil"),
    ),
    "a link in a circle": tar(TOP, member("top/l", tarfile.SYMTYPE, "l")),
    "a link at the top": tar(member("top", tarfile.SYMTYPE, "evil")),
    "an empty link": tar(TOP, member("top/l", tarfile.SYMTYPE, "")),
    "a hard link out": tar(TOP, member("top/l", tarfile.LNKTYPE, "/etc/passwd")),
    "a hard link to nothing": tar(TOP, member("top/l", tarfile.LNKTYPE, "top/absent")),
    "a hard link to itself": tar(member("top"), member("top", tarfile.LNKTYPE, "top")),
    "a hard link to a link": tar(
        TOP, member("top/l", tarfile.SYMTYPE, "x"), member("top/h", tarfile.LNKTYPE, "top/l")
    ),
    "a fifo": tar(TOP, member("top/f", tarfile.FIFOTYPE)),
    "a device": tar(TOP, member("top/f", tarfile.CHRTYPE)),
    "a sparse file": tar(TOP, member("top/f", tarfile.GNUTYPE_SPARSE)),
    "a name too long": tar(TOP, member("top/" + "x" * 300)),
    "a tree too deep": tar(member("top/" + "x/" * 200)),
    "nothing": b"",
    "only an end": tar(),
    "no end": TOP,
    "half a header": TOP[:300],
    "half a file": member("top", content=b"x" * 2000)[:1500],
    "garbage": b"this is no archive at all" * 100,
    "garbage in the middle": TOP + b"\1" * 512 + tar(),
    "garbage behind": tar(TOP) + b"x",
    "a damaged header": TOP[:10] + b"!" + TOP[11:] + bytes(1024),
}


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize("what", EVIL)
def test_what_is_unsafe_or_damaged_is_refused_and_leaves_nothing(
    tmp_path: Path, what: str, step: int
) -> None:
    (tmp_path / "final").write_text("old")
    with pytest.raises(ArchiveError):
        unpacked(EVIL[what], tmp_path / "final", step=step)
    assert os.listdir(tmp_path) == ["final"]
    assert (tmp_path / "final").read_text() == "old"


def test_a_refusal_names_the_member(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="top/l: it is a link to /etc/passwd"):
        unpacked(EVIL["an absolute link"], tmp_path / "final")
    with pytest.raises(ArchiveError, match=r"top/a\\nb: it is no file"):
        unpacked(tar(TOP, member("top/a\nb", tarfile.FIFOTYPE)), tmp_path / "final")


@pytest.mark.parametrize(
    "header",
    [
        {"GNU.sparse.realsize": "1"},
        {"path": "top/../../evil"},
        {"size": "-1"},
        {"size": "99999999999999999"},
        {"linkpath": "/etc"},
        {"comment": "x" * (1 << 20)},
    ],
)
def test_extended_headers_are_held_to_the_same_rules(
    tmp_path: Path, header: dict[str, str]
) -> None:
    info = tarfile.TarInfo("top/l")
    info.type, info.linkname, info.pax_headers = tarfile.SYMTYPE, "x", header
    if "linkpath" not in header:
        info.type, info.linkname = tarfile.REGTYPE, ""
    with pytest.raises(ArchiveError):
        unpacked(tar(TOP, info.tobuf(tarfile.PAX_FORMAT)), tmp_path / "final")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_of_others_are_read(tmp_path: Path, form: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as writing:
        for name in ("./top", "./top/" + "d" * 90, "./top/" + "d" * 90 + "/ü" + "f" * 90):
            info = tarfile.TarInfo(name)
            info.type = tarfile.REGTYPE if "f" in name else tarfile.DIRTYPE
            info.mtime = 1.5 if form == tarfile.PAX_FORMAT else 1
            info.size = 3 if "f" in name else 0
            writing.addfile(info, io.BytesIO(b"abc"))
        info = tarfile.TarInfo("./top/hard")
        info.type, info.linkname = tarfile.LNKTYPE, "./top/" + "d" * 90 + "/ü" + "f" * 90
        if form != tarfile.USTAR_FORMAT:  # its link names are too short
            writing.addfile(info)
    unpacked(buffer.getvalue(), tmp_path / "final")
    file = tmp_path / "final" / ("d" * 90) / ("ü" + "f" * 90)
    assert file.read_bytes() == b"abc"
    assert file.stat().st_mtime == (1.5 if form == tarfile.PAX_FORMAT else 1)
    assert file.stat().st_nlink == (1 if form == tarfile.USTAR_FORMAT else 2)


def test_special_bits_never_reach_the_host_and_the_umask_holds(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        unpacked(tar(TOP, member("top/f")), tmp_path / "final")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "final").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "final" / "f").stat().st_mode) == 0o755
    assert (tmp_path / "final" / "f").stat().st_uid == os.getuid()


def test_the_last_of_two_files_wins_and_does_not_write_through_a_link(tmp_path: Path) -> None:
    data = tar(
        TOP,
        member("top/a", content=b"first"),
        member("top/h", tarfile.LNKTYPE, "top/a"),
        member("top/a", content=b"second"),
    )
    unpacked(data, tmp_path / "final")
    assert (tmp_path / "final" / "a").read_text() == "second"
    assert (tmp_path / "final" / "h").read_text() == "first"


def test_limits_hold(tmp_path: Path) -> None:
    huge = tarfile.TarInfo("top")
    huge.size = 1 << 40
    cases: tuple[tuple[bytes, dict[str, Any]], ...] = (
        (tar(member("top", content=b"12345")), {"limit": 4}),
        (huge.tobuf(tarfile.GNU_FORMAT), {}),
        (tar(TOP, member("top/a"), member("top/b")), {"members": 2}),
        (tar(member("top/a/b/c/d")), {"members": 3}),
    )
    for data, limits in cases:
        with pytest.raises(ArchiveError, match=r"limit|too many"):
            unpacked(data, tmp_path / "final", **limits)
    unpacked(tar(member("top", content=b"1234")), tmp_path / "final", limit=4, members=1)


def test_an_error_of_the_sink_that_a_backend_swallows_comes_up_at_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with unpacking(tmp_path / "final", "top") as sink:
            for _ in range(3):
                try:
                    await sink(b"x" * archive.CHUNK)
                except ArchiveError:
                    continue

    with pytest.raises(ArchiveError, match="damaged"):
        asyncio.run(main())
    assert os.listdir(tmp_path) == []


def test_a_directory_never_replaces_what_came_meanwhile(tmp_path: Path) -> None:
    async def main() -> None:
        async with unpacking(tmp_path / "final", "top") as sink:
            await sink(tar(TOP))
            (tmp_path / "final").write_text("mine")

    with pytest.raises(ArchiveError, match="exists"):
        asyncio.run(main())
    assert (tmp_path / "final").read_text() == "mine"
    assert os.listdir(tmp_path) == ["final"]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "final").write_text("old")
    with (tmp_path / "final").open() as reader:
        unpacked(tar(member("top", content=b"new")), archive.destination(tmp_path / "final", "top"))
        assert reader.read() == "old"
    assert (tmp_path / "final").read_text() == "new"


def test_the_destination_is_like_that_of_cp(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "there").mkdir()
    assert archive.destination(tmp_path / "new", "x") == tmp_path / "new"
    assert archive.destination(tmp_path / "file", "x") == tmp_path / "file"
    assert archive.destination(tmp_path / "folder", "x") == tmp_path / "folder" / "x"
    fails: Iterable[tuple[Callable[[], Path], str]] = (
        (lambda: archive.destination(tmp_path / "folder", "there"), "is a directory"),
        (lambda: archive.destination(tmp_path / "no" / "way", "x"), "no directory"),
        (lambda: archive.destination(tmp_path / "file" / "way", "x"), "Not a directory|no dir"),
        (lambda: archive.destination(tmp_path / ("n" * 300), "x"), "too long"),
        (lambda: archive.destination(Path("/dev/null"), "x"), "regular"),
    )
    for fail, reason in fails:
        with pytest.raises(ConfigError, match=reason) as caught:
            fail()
        assert caught.value.remedy
