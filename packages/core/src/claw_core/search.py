"""Looks for texts in the files of an instance, from inside of it.

The texts are secrets: they travel by standard input, and never as an argument.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from claw_core.capture import Capture
from claw_core.errors import ClawError
from claw_core.model import IO, Command, Exit

Execute: TypeAlias = Callable[[Command, IO], Awaitable[Exit]]
"""Runs a command in the instance."""

ARGUMENTS: Final = 32 << 10
"""Bytes of paths that one command gets; every transport can carry that."""
_WITHIN: Final = ("-xdev", "-type", "f", "-print0")
_SIFT: Final = ("-maxdepth", "0", "-type", "f", "-print0")
"""Lets `find` tell which of its arguments are files: to read of a pipe could take for ever."""
_GREP: Final = ("grep", "-l", "-F", "-s", "-f", "-", "--")


async def search(
    execute: Execute, texts: tuple[str, ...], within: Sequence[str] = ("/",)
) -> frozenset[str]:
    """Return the files of the whole disk, or of a part of it, that contain one of the texts.

    What is mounted is left out, and so is what the user of commands may not read.

    Args:
        execute: runs a command in the instance.
        texts: without line breaks.
        within: absolute paths of directories; those that are not there are left out.

    Raises:
        ClawError: the instance has no `find` or no `grep`.
    """
    return await _grep(execute, _paths(await _run(execute, ("find", *within, *_WITHIN))), texts)


async def search_in(
    execute: Execute, paths: Iterable[str], texts: tuple[str, ...]
) -> frozenset[str]:
    """Return those of some absolute paths that are files and contain one of the texts.

    Raises:
        ClawError: as `search`.
    """
    files: list[str] = []
    for batch in _batches(paths) if texts else ():
        files += _paths(await _run(execute, ("find", *batch, *_SIFT)))
    return await _grep(execute, files, texts)


async def _grep(execute: Execute, files: Iterable[str], texts: tuple[str, ...]) -> frozenset[str]:
    found: set[str] = set()
    data = "".join(f"{text}\n" for text in texts).encode(errors="surrogateescape")
    for batch in _batches(files) if texts else ():
        said = await _run(execute, (*_GREP, *batch), data)
        found |= set(said.decode(errors="surrogateescape").splitlines())
    return frozenset(found)


def _paths(said: bytes) -> list[str]:
    return [path for path in said.decode(errors="surrogateescape").split("\0") if path]


def _batches(paths: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for path in paths:
        batch.append(path)
        size += len(path.encode(errors="surrogateescape")) + 1
        if size >= ARGUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


async def _run(execute: Execute, argv: tuple[str, ...], data: bytes | None = None) -> bytes:
    """Return what a tool says; that it could not read everything is no failure."""
    out, err = Capture(), Capture()
    io = IO(None if data is None else _once(data), out, err)
    ended = await execute(Command(argv, {"LC_ALL": "C"}, "/"), io)
    if ended.code in {126, 127}:
        raise ClawError(
            f"the disk cannot be searched: {ended.reason or f'there is no `{argv[0]}`'}",
            phase="search",
            remedy=f"use an image that has `{argv[0]}`",
        )
    return bytes(out.data)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
