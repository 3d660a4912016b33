"""The caller's standard streams, without ever blocking the event loop.

Descriptors that are inherited cannot be made non-blocking (other processes share them), so each one
gets a thread. The threads are daemons: a reader that never comes back must not keep claw alive.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

CHUNK = 1 << 18
"""Bytes that are read or written at once."""


class Reader:
    """Chunks of a descriptor as an asynchronous iterator, read one at a time and on demand."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._worker = _Worker(f"claw-read-{descriptor}")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield until the end of the input; a closed descriptor is an empty input."""
        while True:
            try:
                chunk: bytes = await self._worker.call(os.read, self._descriptor, CHUNK)
            except OSError:
                return
            if not chunk:
                return
            yield chunk


class Writer:
    """A sink that writes to a descriptor and returns when the bytes are written.

    Raises:
        BrokenPipeError: the reader is gone.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._worker = _Worker(f"claw-write-{descriptor}")

    async def __call__(self, data: bytes) -> None:
        """Write all of a chunk."""
        await self._worker.call(self._write, data)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                # The other side made the shared descriptor non-blocking: wait for room.
                select.select([], [self._descriptor], [])


class _Worker:
    """One daemon thread that makes one blocking call at a time for the event loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._wake = threading.Semaphore(0)
        self._job: tuple[Callable[..., Any], tuple[Any, ...], asyncio.Future[Any]] | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        assert self._loop is not None
        future = self._loop.create_future()
        self._job = (function, args, future)
        self._wake.release()
        return await future

    def _work(self) -> None:
        while True:
            self._wake.acquire()
            assert self._job is not None
            assert self._loop is not None
            function, args, future = self._job
            result, error = None, None
            try:
                result = function(*args)
            except OSError as failure:
                error = failure
            try:
                self._loop.call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more


def _settle(future: asyncio.Future[Any], result: Any, error: OSError | None) -> None:
    if future.done():
        return  # cancelled meanwhile
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
