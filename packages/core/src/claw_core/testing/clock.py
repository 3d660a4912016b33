"""Event loops on a virtual clock: one per simulated process, all of them taking turns.

Nothing waits: when nobody can go on, the time jumps to whatever is due next. The turns depend on
nothing but what was asked for, so a simulation goes the same way every time.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Sized
from typing import Any, TypeVar, cast

T = TypeVar("T")


class Killed(BaseException):
    """This process has just been killed: none of its code counts any more."""


class Deadlock(Exception):
    """A process waits for something that nothing will ever bring."""


class Turn:
    """Something that is due; the handle that `asyncio` expects."""

    __slots__ = ("arguments", "callback", "context", "loop", "time")

    def __init__(
        self,
        loop: Loop | None,
        time: float,
        callback: Callable[..., object],
        arguments: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> None:
        self.loop = loop
        self.time = time
        self.callback: Callable[..., object] | None = callback
        self.arguments = arguments
        self.context = context

    def cancel(self) -> None:
        """Let it not happen."""
        self.callback = None
        self.arguments = ()

    def cancelled(self) -> bool:
        """Whether it will not happen."""
        return self.callback is None

    def when(self) -> float:
        """The time at which it is due."""
        return self.time


class Timeline:
    """The time of a world, and everything that is due in it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.current: Loop | None = None
        self.ready: deque[Turn] = deque()
        self._due: list[tuple[float, int, Turn]] = []
        self._count = 0

    def call(self, delay: float, callback: Callable[..., object], *arguments: Any) -> Turn:
        """Let something happen in the world, which is no process and cannot be killed.

        Args:
            delay: seconds from now.
            callback: called with `arguments`.
            *arguments: see `callback`.
        """
        return self.add(Turn(None, self.now + delay, callback, arguments, None))

    def add(self, turn: Turn) -> Turn:
        """Enqueue a turn at its time."""
        if turn.time <= self.now:
            self.ready.append(turn)
        else:
            self._count += 1
            heapq.heappush(self._due, (turn.time, self._count, turn))
        return turn

    def run(self, stop: Sized = (), until: float = float("inf"), steps: int = 1_000_000) -> bool:
        """Let everything happen that is due, and return whether nothing is left.

        Args:
            stop: end at once when there is anything in it.
            until: end before a turn that is later.
            steps: end after so many turns.
        """
        ready, due = self.ready, self._due
        for _ in range(steps):
            if ready:
                turn = ready.popleft()
            elif due and due[0][0] <= until:
                turn = heapq.heappop(due)[2]
            else:
                return not due
            loop = turn.loop
            if turn.callback is None or (loop is not None and loop.dead):
                continue
            if turn.time > self.now:
                self.now = turn.time
            self._take(turn, loop)
            if stop:
                return False
        return False

    def others(self, seconds: float) -> None:
        """Let every other process go on for a while: the one at work is in a system call."""
        at_work, until, waiting = self.current, self.now + seconds, []
        while self.ready or (self._due and self._due[0][0] <= until):
            turn = self.ready.popleft() if self.ready else heapq.heappop(self._due)[2]
            loop = turn.loop
            if loop is not None and loop.busy:
                waiting.append(turn)
            elif turn.callback is not None and not (loop is not None and loop.dead):
                self.now = max(self.now, turn.time)
                self._take(turn, loop)
        self.ready.extendleft(reversed(waiting))
        self.enter(at_work)

    def leave(self) -> None:
        """Nobody is at work any more."""
        self.enter(None)

    def _take(self, turn: Turn, loop: Loop | None) -> None:
        assert turn.callback is not None
        if loop is not self.current:
            self.enter(loop)
        if loop is not None:
            loop.busy = True
        try:
            if turn.context is None:
                turn.callback(*turn.arguments)
            else:
                turn.context.run(turn.callback, *turn.arguments)
        except Killed:
            pass
        if loop is not None:
            loop.busy = False

    def enter(self, loop: Loop | None) -> None:
        """Switch to another process, or to none."""
        self.current = loop
        events._set_running_loop(cast("Any", loop))  # noqa: SLF001 - it is there for event loops


class Loop:
    """The event loop of one process; it stops for ever in the middle of whatever it does.

    It has what `asyncio` calls where nothing but time, tasks and threads is needed. Threads are
    turns as well, since nothing else would be deterministic: a call in a thread happens as a whole,
    at once or somewhat later.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.create_future = functools.partial(asyncio.Future[Any], loop=cast("Any", self))
        self.dead = False
        self.busy = False
        self.failures: list[BaseException] = []
        self._tasks: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        """See `asyncio`."""
        return self.timeline.now

    def get_debug(self) -> bool:
        """See `asyncio`."""
        return False

    def is_running(self) -> bool:
        """See `asyncio`."""
        return not self.dead

    def is_closed(self) -> bool:
        """See `asyncio`."""
        return self.dead

    def call_soon(
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        """See `asyncio`."""
        turn = Turn(self, 0.0, callback, args, context)
        self.timeline.ready.append(turn)
        return turn

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        """See `asyncio`."""
        return self.call_at(self.timeline.now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        """See `asyncio`."""
        return self.timeline.add(Turn(self, when, callback, args, context))

    def create_task(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        """See `asyncio`; a dead process starts nothing."""
        if self.dead:
            coro.close()
            raise Killed
        task = asyncio.Task(coro, loop=cast("Any", self), name=name, context=context)
        self._tasks.append(task)
        return task

    def run_in_executor(
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """See `asyncio`."""
        future: asyncio.Future[T] = self.create_future()
        delay = self.thread_delay()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 - handed to whoever waits for it
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        if delay is None:
            work()
        else:
            self.call_later(delay, work)
        return future

    def thread_delay(self) -> float | None:
        """Seconds until a thread has started; None when it has ended before anybody looks."""
        return None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what nobody else took."""
        error = context.get("exception")
        if not self.dead and error is not None:
            self.failures.append(error)

    def unwind(self) -> None:
        """Free what a dead process holds in memory; nothing that it does meanwhile has an effect.

        Otherwise the garbage collector would run its clean-up code later, amid other work.
        """
        assert self.dead
        self.timeline.enter(self)  # so that what it would start is started nowhere
        for task in self._tasks:
            if not task.done():
                _throw(task.get_coro())
        self._tasks.clear()
        self.timeline.leave()


def _throw(coroutine: Any) -> None:
    for _ in range(100):
        try:
            coroutine.throw(Killed())
        except BaseException:  # noqa: BLE001 - the end of code that does not count
            return
    raise Deadlock(f"{coroutine!r} does not end")
