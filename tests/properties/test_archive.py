"""Whatever the archive: nothing outside the destination changes, and no failure leaves anything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import tarfile
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from claw_core import archive
from claw_core.errors import ArchiveError
from claw_core.unpack import unpacking

Tree = dict[bytes, "bytes | tuple[str, bool] | Tree"]

PARTS = st.sampled_from(["top", "a", "b", "A", "..", ".", "", "out", "ü\n", "top"])
NAMES = st.one_of(
    st.lists(PARTS, min_size=1, max_size=5).map(lambda parts: "top/" + "/".join(parts)),
    st.lists(PARTS, min_size=1, max_size=5).map("/".join),
)
TYPES = st.sampled_from(
    [tarfile.REGTYPE] * 3
    + [tarfile.DIRTYPE] * 3
    + [tarfile.SYMTYPE] * 3
    + [tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"Z", tarfile.AREGTYPE]
)


@st.composite
def members(draw: st.DrawFn) -> bytes:
    info = tarfile.TarInfo(draw(NAMES))
    info.type = draw(TYPES)
    info.mode = draw(st.integers(0, 0o7777))
    content = draw(st.binary(max_size=600)) if info.isreg() else b""
    info.size = len(content)
    info.linkname = draw(NAMES | st.sampled_from(["../../out", "/", "a", "..", "../a", "b/.."]))
    gnu = draw(st.booleans())
    header = info.tobuf(tarfile.GNU_FORMAT) if gnu else info.tobuf(tarfile.PAX_FORMAT)
    return header + content + bytes(-len(content) % 512)


STREAMS = st.one_of(
    st.lists(members(), max_size=8).map(lambda them: b"".join(them) + bytes(1024)),
    st.lists(members(), max_size=3).map(b"".join),
    st.binary(max_size=1500),
)


def picture(root: Path) -> dict[str, tuple[int, int, object]]:
    """Everything below a directory, followed through nothing."""
    found: dict[str, tuple[int, int, object]] = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder, name)
            info = path.lstat()
            what: object = None
            if stat.S_ISREG(info.st_mode):
                what = path.read_bytes()
            elif stat.S_ISLNK(info.st_mode):
                what = os.readlink(path)
            found[str(path.relative_to(root))] = (info.st_mode, info.st_mtime_ns, what)
    return found


async def unpack(data: bytes, final: Path, step: int) -> None:
    async with unpacking(final, "top") as sink:
        for start in range(0, len(data), step):
            await sink(data[start : start + step])


@settings(deadline=None)
@given(STREAMS, st.integers(1, 2000), st.booleans())
def test_nothing_outside_the_destination_changes(data: bytes, step: int, exists: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = Path(directory)
        place = world / "place"
        place.mkdir()
        for name in ("out", "a", "place/out", "place/a"):
            (world / name).write_text("precious")
        if exists:
            (place / "final").write_text("old")
        before = picture(world)
        succeeded = False
        with contextlib.suppress(ArchiveError):
            asyncio.run(unpack(data, place / "final", step))
            succeeded = True
        after = picture(world)
        new = {name for name in after if name == "place/final" or name.startswith("place/final/")}
        for name, value in before.items():
            if name != "place" and not (succeeded and name in new):
                assert after[name] == value
        assert succeeded or after.keys() == before.keys()
        assert after.keys() - before.keys() <= new
        for name in new if succeeded else ():
            path = world / name
            real = os.path.realpath(path)
            assert real == str(place.resolve() / "final") or real.startswith(
                str(place.resolve() / "final") + "/"
            )
            assert not path.lstat().st_mode & 0o7000
            kind = stat.S_IFMT(path.lstat().st_mode)
            assert kind in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}


FILE_NAMES = st.one_of(
    st.sampled_from([b"plain", b"with space", b"new\nline", "ü€𝄞".encode(), b"\xff\xfe", b"-rf"]),
    st.binary(min_size=1, max_size=120).filter(
        lambda name: not {b"/"[0], 0} & set(name) and name not in {b".", b".."}
    ),
)
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.dictionaries(
        FILE_NAMES,
        st.binary(max_size=1200)
        | st.tuples(st.sampled_from(["there", "no/where", "."]), st.booleans()),
        max_size=4,
    ),
    lambda inner: st.dictionaries(FILE_NAMES, inner | st.binary(max_size=20), max_size=4),
    max_leaves=12,
)


def grow(tree: Tree, place: bytes) -> None:
    os.mkdir(place)
    for name, what in tree.items():
        path = os.path.join(place, name)
        if isinstance(what, dict):
            grow(what, path)
        elif isinstance(what, tuple) and what[1]:
            os.symlink(what[0], path)
        else:
            content = what if isinstance(what, bytes) else what[0].encode()
            with open(path, "wb") as file:
                file.write(content)
            os.chmod(path, 0o755 if len(content) % 2 else 0o600)


@settings(deadline=None)
@given(TREES)
def test_whatever_the_tree_it_comes_back_the_same(tree: Tree) -> None:
    with tempfile.TemporaryDirectory() as directory:
        source, copy = Path(directory, "source"), Path(directory, "copy")
        grow(tree, os.fsencode(source))

        async def main() -> None:
            async with unpacking(copy, "top") as sink:
                async for chunk in archive.pack(source, "top"):
                    await sink(chunk)

        asyncio.run(main())
        expected, got = picture(source), picture(copy)
        assert {k: (v[0], v[2]) for k, v in expected.items()} == {
            k: (v[0], v[2]) for k, v in got.items()
        }
