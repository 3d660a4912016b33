"""What is typed at a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from claw_core.streaming import typed


@pytest.mark.parametrize(
    ("chunks", "keys"),
    [
        ((), b"\x04"),
        ((b"line\n",), b"line\n\x04"),
        ((b"line\r", b""), b"line\r\x04"),
        ((b"two ", b"words"), b"two words\x04\x04"),
    ],
)
def test_at_its_end_an_input_is_ended_as_at_a_keyboard(
    chunks: tuple[bytes, ...], keys: bytes
) -> None:
    async def given() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def all_of(source: AsyncIterator[bytes] | None) -> bytes:
        return b"".join([chunk async for chunk in typed(source)])

    assert asyncio.run(all_of(given())) == keys
    assert asyncio.run(all_of(None)) == b"\x04"
