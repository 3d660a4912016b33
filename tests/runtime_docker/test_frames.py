"""Frames: every byte in order on its channel, however they are cut; and no nonsense."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claw_runtime_docker.errors import EngineBroken
from claw_runtime_docker.frames import split


def frame(channel: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", channel, len(data)) + data


def reader(pieces: Sequence[bytes]) -> Callable[[], Awaitable[bytes]]:
    left = iter(piece for piece in pieces if piece)

    async def read() -> bytes:
        return next(left, b"")

    return read


def parsed(*pieces: bytes) -> dict[int, bytes]:
    async def collect() -> dict[int, bytes]:
        found = {1: b"", 2: b""}
        async for channel, data in split(reader(pieces)):
            assert data
            found[channel] += data
        return found

    return asyncio.run(collect())


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.binary(max_size=50)), max_size=10),
    st.lists(st.integers(1, 40)),
)
def test_however_it_is_cut_every_byte_arrives(
    sent: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(frame(channel, data) for channel, data in sent)
    pieces = []
    for cut in cuts:
        pieces.append(stream[:cut])
        stream = stream[cut:]
    found = parsed(*pieces, stream)
    assert found[1] == b"".join(data for channel, data in sent if channel != 2)
    assert found[2] == b"".join(data for channel, data in sent if channel == 2)


def test_a_large_frame_comes_in_pieces() -> None:
    async def sizes() -> list[int]:
        header = struct.pack(">BxxxL", 1, 300_000)
        pieces = [header, *(bytes(100_000) for _ in range(3))]
        return [len(data) async for _, data in split(reader(pieces))]

    assert asyncio.run(sizes()) == [100_000] * 3


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"\1\0\0", "in the middle of a frame's header"),
        (frame(1, b"abc")[:-1], "in the middle of a frame"),
        (b"\4\0\0\0\0\0\0\1x", "malformed"),
        (b"\1\0x\0\0\0\0\1x", "malformed"),
        (b"\1\0\0\0\xff\xff\xff\xffx", "malformed"),
        (b"HTTP/1.1 500 Internal", "malformed"),
    ],
)
def test_nonsense_is_an_error(stream: bytes, why: str) -> None:
    with pytest.raises(EngineBroken, match=why):
        parsed(stream)


def test_an_error_of_the_engine_is_told() -> None:
    with pytest.raises(EngineBroken, match="the engine reports: broken pipe"):
        parsed(frame(1, b"x"), frame(3, b"broken pipe\n"))
