"""Finds what is said about a command between the bytes that it writes itself."""

from __future__ import annotations

from typing import Final

import attrs

from claw_runtime_apple.scripts import MARK

_LONGEST: Final = 64
"""Bytes of a word that are waited for; ours are shorter."""


@attrs.frozen
class Word:
    """What was said: a process group, an exit code, or why a command was not started."""

    text: str


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
