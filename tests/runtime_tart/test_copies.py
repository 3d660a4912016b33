"""Mounts that are copied in, and what comes back of them: everything, or nothing."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from claw_core import events
from claw_core.errors import DeadlineExceeded, RuntimeFault, SpentInstance
from claw_core.model import Mount
from claw_core.session import Session
from claw_runtime_tart import furnishing, returning
from runtime_tart import worlds
from runtime_tart.support import output, run, session, shell
from simulators.tart.world import Simulator

TARGET = "/workspace/project"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("before")
    return tree


@contextlib.asynccontextmanager
async def copied(world: Simulator, tree: Path, **options: Any) -> AsyncIterator[Session]:
    mounts = [Mount(tree, TARGET, writable=True, authorised=True)]
    settings = {"share": "copy"}
    async with session(world, settings=settings, mounts=mounts, **options) as opened:
        yield opened


def guest_tar(world: Simulator, program: str) -> None:
    tar = world.disk(worlds.BASE) / "usr/local/bin/tar"
    tar.parent.mkdir(parents=True, exist_ok=True)
    tar.write_text(f"#!/bin/sh\n{program}\n")
    tar.chmod(0o755)


def test_whatever_a_command_makes_comes_back(shared: Simulator, tree: Path) -> None:
    program = """
    ln -s /usr/bin/env absolute; ln -s ../.. up; ln -s nowhere dangling; mkfifo fifo
    echo x > one; ln one other; truncate -s 5000000 holes; echo y >> holes
    mkdir closed; echo z > closed/inner; chmod 000 closed
    sudo sh -c 'echo root > secret; chmod 600 secret'; mkdir -- "-rf"; echo w > '*'
    python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
    i=0; while [ $i -lt 500 ]; do echo $i > many$i; i=$((i + 1)); done
    """

    async def work() -> None:
        async with copied(shared, tree) as s:
            await shell(s, program)
            await shell(s, "test ! -e many1 || rm many*", workdir=TARGET)

    run(work())
    names = {"absolute", "up", "dangling", "one", "other", "holes", "closed", "secret", "-rf", "*"}
    assert set(os.listdir(tree)) == {"file", *names}
    assert os.readlink(tree / "absolute") == "/usr/bin/env"
    assert (tree / "secret").read_text() == "root\n"
    assert (tree / "closed" / "inner").read_text() == "z\n"
    assert (tree / "holes").stat().st_size == 5_000_002
    assert stat.S_IMODE((tree / "closed").stat().st_mode) == 0o700
    assert os.listdir(tree.parent) == ["tree"]


def test_what_the_host_writes_meanwhile_is_not_lost(shared: Simulator, tree: Path) -> None:
    (tree / ".git").mkdir()
    said: list[str] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.Notice):
            said.append(event.text)

    async def work() -> None:
        async with copied(shared, tree, listener=listen) as s:
            (tree / ".git" / "index").write_text("an editor looks")
            await shell(s, "echo one > made")
            assert os.listdir(tree.parent) == ["tree"]
            (tree / "file").write_text("mine")
            await shell(s, "echo two > made")
            await shell(s, "echo three > made")

    run(work())
    other, name = sorted(os.listdir(tree.parent), key=len, reverse=True)
    assert name == "tree"
    assert (tree.parent / other / "file").read_text() == "mine"
    assert [(tree / name).read_text() for name in ("file", "made")] == ["before", "three\n"]
    assert sum(other in text for text in said) == 1


def test_a_source_that_vanishes_or_is_another_thing_meanwhile(
    shared: Simulator, tree: Path
) -> None:
    async def work() -> None:
        async with copied(shared, tree) as s:
            (tree / "file").unlink()
            tree.rmdir()
            await shell(s, "echo one > made")
            assert (tree / "made").read_text() == "one\n"
            await shell(s, "cd /workspace; sudo rm -r project; sudo touch project", workdir="/")

    with pytest.raises(RuntimeFault, match=r"tree was not brought back: .*a file would come"):
        run(work())
    assert os.listdir(tree.parent) == ["tree"]
    assert (tree / "made").read_text() == "one\n"


def test_bringing_back_ends_also_where_the_guest_does_not(
    world: Simulator, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest_tar(world, 'case "$*" in *-c*) sleep 600 ;; esac; exec /usr/bin/tar "$@"')
    monkeypatch.setattr(furnishing, "STALL", 0.3)
    said: list[str] = []

    async def work() -> None:
        listen = lambda event: said.append(str(event))  # noqa: E731 - short
        async with copied(world, tree, listener=listen) as s:
            with pytest.raises(DeadlineExceeded, match="the command was stopped"):
                await output(s, "sleep", "600", timeout=0.3)
            with pytest.raises(SpentInstance):
                await output(s, "true")

    run(work())
    assert any("tree was not brought back: nothing came" in text for text in said), said
    assert (tree / "file").read_text() == "before"
    assert os.listdir(tree.parent) == ["tree"]


def test_the_tar_of_a_mac_is_told_what_nobody_else_can_read(world: Simulator, tree: Path) -> None:
    guest_tar(
        world,
        """
        case "$*" in
        --version) echo 'bsdtar 3.5.3 - libarchive 3.5.3 zlib/1.2.12'; exit ;;
        '--no-mac-metadata --no-read-sparse -c '*) shift 2 ;;
        *-c*) exit 9 ;;
        esac
        exec /usr/bin/tar "$@"
        """,
    )

    async def work() -> None:
        async with copied(world, tree) as s:
            await shell(s, "echo one > made")
            await s.download(f"{TARGET}/made", tree.parent / "down")

    run(work())
    assert (tree / "made").read_text() == (tree.parent / "down").read_text() == "one\n"


def test_files_go_where_commands_start(shared: Simulator, tree: Path) -> None:
    """Relative paths lie there; and what is uploaded into a copy comes back with it."""

    async def work() -> None:
        async with copied(shared, tree) as s:
            await s.upload(tree / "file", "deep/down")
            assert await shell(s, "cat deep/down") == "before"
            await s.download("deep", tree.parent / "back")

    run(work())
    assert (tree.parent / "back" / "down").read_text() == "before"
    assert (tree / "deep" / "down").read_text() == "before"


def test_a_single_file_comes_back(shared: Simulator, tree: Path) -> None:
    mounts = [Mount(tree / "file", "/etc/some.conf", writable=True, authorised=True)]

    async def work() -> None:
        async with session(shared, mounts=mounts) as s:
            await shell(s, "sudo sh -c 'echo after > /etc/some.conf'")

    run(work())
    assert (tree / "file").read_text() == "after\n"
    assert os.listdir(tree) == ["file"]


def test_the_state_of_a_tree_changes_with_its_content(tree: Path) -> None:
    seen = {returning.state(tree)}
    for change in (
        lambda: (tree / "file").write_text("after, and longer"),
        lambda: (tree / "file").chmod(0o600),
        lambda: (tree / "deep").mkdir(),
        lambda: (tree / "deep" / "file").write_text(""),
        lambda: (tree / "deep" / "file").rename(tree / "deep" / "other"),
        lambda: (tree / "deep" / "link").symlink_to("other"),
        lambda: (tree / "file").unlink(),
    ):
        change()
        seen.add(returning.state(tree))
    assert len(seen) == 8
    moved = tree.rename(tree.parent / "moved")
    assert returning.state(moved) in seen
