"""Splits an engine's stream of frames into standard output and standard error."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Literal, TypeAlias

from claw_runtime_docker.errors import EngineBroken

Channel: TypeAlias = Literal[1, 2]

_HEADER: Final = struct.Struct(">BxxxL")
_SYSTEM_ERROR: Final = 3
_LIMIT: Final = 1 << 30


async def split(read: Callable[[], Awaitable[bytes]]) -> AsyncIterator[tuple[Channel, bytes]]:
    """Yield channel and bytes as they come; what one read brings of a channel comes in one piece.

    Args:
        read: gives some bytes, and none at the end.

    Raises:
        EngineBroken: a frame is malformed or ends in the middle, or the engine reports an error.
    """
    rest, said = b"", b""
    number, left = 0, 0
    while data := await read():
        buffer = rest + data if rest else data
        position = 0
        channel: Channel = 1
        pieces: list[bytes] = []
        while position < len(buffer):
            if not left:
                if len(buffer) - position < _HEADER.size:
                    break
                number, left = _header(buffer, position)
                position += _HEADER.size
                continue
            piece = buffer[position : position + left]
            position += len(piece)
            left -= len(piece)
            if number == _SYSTEM_ERROR:
                said = (said + piece)[:4096]
                if not left:
                    raise EngineBroken(
                        f"the engine reports: {said.decode(errors='replace').strip()}"
                    )
                continue
            current: Channel = 2 if number == 2 else 1
            if pieces and current != channel:
                yield channel, b"".join(pieces)
                pieces = []
            channel = current
            pieces.append(piece)
        if pieces:
            yield channel, b"".join(pieces)
        rest = buffer[position:]
    if left:
        raise _broken("ended in the middle of a frame")
    if rest:
        raise _broken("ended in the middle of a frame's header")


def _header(buffer: bytes, position: int) -> tuple[int, int]:
    """Return number of the stream and length of a frame."""
    head = buffer[position : position + _HEADER.size]
    number, length = _HEADER.unpack(head)
    if number not in (0, 1, 2, _SYSTEM_ERROR) or head[1:4] != b"\0\0\0" or length > _LIMIT:
        raise _broken(f"has a malformed frame (header {head.hex()})")
    return number, length


def _broken(what: str) -> EngineBroken:
    return EngineBroken(
        f"the engine's stream {what}",
        remedy="see the engine's log; how the command ended is unknown",
    )
