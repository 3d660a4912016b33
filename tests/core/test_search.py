"""Texts are found in files, by the tools of an instance, and given to no argument."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from claw_core.errors import ClawError
from claw_core.model import IO, Command, Exit
from claw_core.redaction import traces
from claw_core.search import ARGUMENTS, search, search_in
from claw_core.streaming import attend


class Host:
    """Runs commands here, and remembers them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands: list[Command] = []

    async def execute(self, command: Command, io: IO) -> Exit:
        self.commands.append(command)
        argv = [str(self.root) if one == "/" else one for one in command.argv]
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **command.env},
            cwd=command.workdir,
        )
        return Exit.from_wait((await attend(process, io)).code)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_all_of_the_disk_is_searched(host: Host, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/two words").write_bytes(b"\0binary\0 hunter2-hunter2 \xff")
    (tmp_path / "-e").write_text("a.b*c[d\n")
    (tmp_path / "other").write_text("axbbbcd hunter")
    (tmp_path / "link").symlink_to("sub/two words")
    found = asyncio.run(search(host.execute, ("hunter2-hunter2", "a.b*c[d")))
    assert found == {f"{tmp_path}/sub/two words", f"{tmp_path}/-e"}
    assert not any("hunter2" in word for one in host.commands for word in one.argv)
    assert not any("hunter2" in word for one in host.commands for word in one.env.values())


def test_many_files_come_in_batches(host: Host, tmp_path: Path) -> None:
    long = "x" * 100
    for number in range(500):
        (tmp_path / f"{number}-{long}").write_text("here" if number % 100 == 7 else "")
    os.mkfifo(tmp_path / "pipe")  # who reads of it would wait for ever
    (tmp_path / "link").symlink_to("pipe")
    paths = [*map(str, tmp_path.iterdir()), str(tmp_path), "/no/such/file"]
    found = asyncio.run(search_in(host.execute, paths, ("here",)))
    assert {Path(path).name.partition("-")[0] for path in found} == {
        "7",
        "107",
        "207",
        "307",
        "407",
    }
    assert len(host.commands) > 2
    assert all(sum(map(len, one.argv)) < 2 * ARGUMENTS for one in host.commands)


def test_where_nothing_is_to_be_found_nothing_is_run(host: Host) -> None:
    assert asyncio.run(search_in(host.execute, ["/etc/passwd"], ())) == frozenset()
    assert asyncio.run(search_in(host.execute, [], ("x",))) == frozenset()
    assert host.commands == []


def test_without_the_tools_it_says_so() -> None:
    async def execute(command: Command, io: IO) -> Exit:
        return Exit(127)

    with pytest.raises(ClawError, match="there is no `find`"):
        asyncio.run(search(execute, ("x",)))


KEY = "-----BEGIN TEST KEY-----\nb3BlbnNzaC1rZXk\nshort\n-----END TEST KEY-----\n"


@pytest.mark.parametrize(
    ("value", "found", "absent"),
    [
        ("hunter2-hunter2", {"hunter2-hunter2"}, set()),
        ("1234", set(), {"1234"}),
        ("two words!", {"two words!", "two%20words%21"}, set()),
        (KEY, {"b3BlbnNzaC1rZXk"}, {"short", KEY, *KEY.splitlines()[::3]}),
    ],
)
def test_the_traces_of_a_secret_are_lines_that_nothing_else_has(
    value: str, found: set[str], absent: set[str]
) -> None:
    assert found <= traces(value)
    assert not absent & traces(value)
    assert not any("\n" in line for line in traces(value))
