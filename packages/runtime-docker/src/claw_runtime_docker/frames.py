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
    """Yield channel and bytes as they come; a large frame comes in pieces, and none is kept.

    Args:
        read: gives some bytes, and none at the end.

    Raises:
        EngineBroken: a frame is malformed or ends in the middle, or the engine reports an error.
    """
    buffer = b""
    while True:
        while len(buffer) < _HEADER.size:
            data = await read()
            if not data:
                if buffer:
                    raise _broken("ended in the middle of a frame's header")
                return
            buffer += data
        channel, left = _HEADER.unpack_from(buffer)
        if channel not in (0, 1, 2, _SYSTEM_ERROR) or buffer[1:4] != b"\0\0\0" or left > _LIMIT:
            raise _broken(f"has a malformed frame (header {buffer[:8].hex()})")
        buffer = buffer[_HEADER.size :]
        said = b""
        while left:
            piece, buffer = (buffer[:left], buffer[left:]) if buffer else (await read(), b"")
            if len(piece) > left:
                piece, buffer = piece[:left], piece[left:]
            if not piece:
                raise _broken("ended in the middle of a frame")
            left -= len(piece)
            if channel == _SYSTEM_ERROR:
                said = (said + piece)[:4096]
            else:
                yield (2 if channel == 2 else 1), piece
        if said:
            raise EngineBroken(f"the engine reports: {said.decode(errors='replace').strip()}")


def _broken(what: str) -> EngineBroken:
    return EngineBroken(
        f"the engine's stream {what}",
        remedy="see the engine's log; how the command ended is unknown",
    )
