"""What a command's shell tells about it, between the bytes that the command writes itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import attrs

from claw_runtime_apple.scripts import MARK, TAKEN

OUT: Final = 1
"""Standard output."""
ERR: Final = 2
"""Standard error."""
PROBLEMS: Final = frozenset({"workdir", "missing", "denied"})
"""Words for why a command was not started."""

_LONGEST: Final = 64
"""Bytes of a word that are waited for; ours are shorter."""


@attrs.frozen
class Word:
    """What was said: a process group, an exit code, or why a command was not started."""

    text: str


@attrs.define(eq=False)
class Told:
    """What was told so far.

    Args:
        token: of the command.
        taken: called when the command has taken a piece of its input.

    Attributes:
        started: the command's process group, or one of `PROBLEMS`.
        ended: set when it was told how the command ended, or that it was not started.
    """

    token: str
    _taken: Callable[[], None]
    started: asyncio.Future[str] = attrs.field(
        init=False, factory=lambda: asyncio.get_running_loop().create_future()
    )
    ended: asyncio.Event = attrs.field(init=False, factory=asyncio.Event)
    _words: dict[int, list[str]] = attrs.field(init=False, factory=lambda: {OUT: [], ERR: []})
    _scanners: dict[int, Scanner] = attrs.field(init=False, factory=dict)

    def own(self, channel: int, data: bytes) -> list[bytes]:
        """Note what is told in the data, and return what is the command's own."""
        scanner = self._scanners.setdefault(channel, Scanner(self.token))
        pieces = []
        for piece in scanner.feed(data):
            if isinstance(piece, Word):
                self._note(channel, piece.text)
            elif self._speaks(channel):
                pieces.append(piece)
        return pieces

    def _speaks(self, channel: int) -> bool:
        """Whether it is the command that writes: other errors are the call's own."""
        if channel == OUT:
            return not self._words[OUT]
        return bool(self.group) and not self.ended.is_set()

    @property
    def problem(self) -> str | None:
        """Why the command was not started."""
        said = self.started.result() if self.started.done() else ""
        return said if said in PROBLEMS else None

    @property
    def group(self) -> str:
        """The command's process group, once it is known."""
        return self.started.result() if self.started.done() and not self.problem else ""

    @property
    def code(self) -> int | None:
        """The command's exit code, if it was told."""
        words = self._words[ERR]
        return int(words[1]) & 0xFF if len(words) > 1 and words[1].isdigit() else None

    @property
    def whole(self) -> bool:
        """Whether all that the command wrote has come."""
        return self.code is not None and bool(self._words[OUT])

    def _note(self, channel: int, word: str) -> None:
        if word == TAKEN:
            self._taken()
            return
        self._words[channel].append(word)
        if channel == ERR and not self.started.done():
            self.started.set_result(word)
        if self.problem is not None or self.code is not None:
            self.ended.set()


@attrs.define(eq=False)
class Scanner:
    """Splits one stream into a command's bytes and our words, in whatever pieces it comes.

    Args:
        token: of the command, in each of our words: nobody else writes it.
    """

    token: str
    _held: bytes = b""

    def feed(self, data: bytes) -> list[bytes | Word]:
        """Return what is certain now; the beginning of a word is held back."""
        mark = f"{MARK}{self.token} ".encode()
        found: list[bytes | Word] = []
        rest = self._held + data
        while (start := rest.find(mark)) >= 0:
            end = rest.find(b"\n", start)
            if end < 0 and len(rest) - start < _LONGEST + len(mark):
                break
            word = rest[start + len(mark) : end] if end >= 0 else rest[start + len(mark) :]
            found += [rest[:start], Word(word.decode(errors="replace"))]
            rest = rest[end + 1 :] if end >= 0 else b""
        keep = start if start >= 0 else _beginning(rest, mark)
        self._held = rest[keep:]
        return [*found, rest[:keep]]


def _beginning(data: bytes, mark: bytes) -> int:
    """Where the beginning of a mark may stand at the end of the data; else its length."""
    start = data.rfind(mark[:1], max(0, len(data) - len(mark) + 1))
    return start if start >= 0 and mark.startswith(data[start:]) else len(data)
