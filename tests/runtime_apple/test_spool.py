"""What a command wrote waits for its reader: in order, whole, and mostly not in memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from claw_core.errors import OutputLimitExceeded, RuntimeFault
from claw_runtime_apple import spool
from claw_runtime_apple.spool import HIGH, LOW, MEMORY, Spool
from runtime_apple.support import run


async def filled(size: int, piece: int = 1 << 20) -> Spool:
    one = Spool()
    for number in range(size // piece):
        await one.put(number % 2, bytes([number % 251]) * piece)
    return one


def test_order_and_content_survive_the_disk() -> None:
    async def work() -> None:
        one = await filled(3 * MEMORY, 100_000)
        assert one._file is not None
        await one.put(7, b"last")
        one.finish()
        found = [piece async for piece in one.pieces()]
        assert found[-1] == (7, b"last")
        for number, (channel, data) in enumerate(found[:-1]):
            assert channel == number % 2
            assert data == bytes([number % 251]) * 100_000
        assert one.size == 0
        assert os.fstat(one._file.fileno()).st_size == 0
        await one.close()

    run(work())


def test_pieces_come_while_others_are_written() -> None:
    async def work() -> None:
        one, found = Spool(), bytearray()

        async def write(channel: int) -> None:
            for number in range(200):
                await one.put(channel, bytes([channel, number]) * 30_000)

        async def read() -> None:
            async for _, data in one.pieces():
                found.extend(data[:2])
                await asyncio.sleep(0)

        reading = asyncio.create_task(read())
        await asyncio.gather(write(1), write(2))
        one.finish()
        await reading
        assert len(found) == 800
        for channel in (1, 2):
            mine = [found[n + 1] for n in range(0, 800, 2) if found[n] == channel]
            assert mine == list(range(200))
        await one.close()

    run(work())


def test_it_says_when_the_writer_should_pause() -> None:
    async def work() -> None:
        one = await filled(HIGH - (1 << 20))
        assert not one.full.is_set()
        await one.put(1, bytes(1 << 20))
        assert one.full.is_set()
        assert not one.roomy.is_set()
        one.finish()
        async for _ in one.pieces():
            assert one.roomy.is_set() == (one.size <= LOW)
        assert not one.full.is_set()
        await one.close()

    run(work())


def test_a_limit_and_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def work() -> None:
        one = await filled(MEMORY)
        monkeypatch.setattr(spool, "LIMIT", MEMORY)
        with pytest.raises(OutputLimitExceeded, match="that nobody read"):
            await one.put(1, b"x")
        monkeypatch.undo()
        patched: Callable[..., None] = full
        monkeypatch.setattr(spool, "_write", patched)
        with pytest.raises(RuntimeFault, match="No space left on device"):
            await one.put(1, b"x")
        one.drop()
        await one.put(1, b"x")
        assert one.size == MEMORY
        await one.close()

    run(work())
