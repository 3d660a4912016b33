"""Observers held around the phases of a runtime: they see, they may deny, they prevent no teardown.

They stand in a plugin manager of their own and are held by our own loop: a coroutine is never None
to `firstresult`, and a pluggy wrapper failing before its `yield` would cancel a teardown.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import pluggy

from claw_core.errors import ClawError, Denied, PluginError
from claw_core.hookspecs import NAMESPACE, OPTIONAL, Observer, Phase, Runtime
from claw_core.model import Instance

HOOKS: Final = tuple(name for name, value in vars(Runtime).items() if hasattr(value, "claw_spec"))
"""The names of all hooks, in the order of the contract."""

OBSERVER_DEADLINE = 5.0
"""Seconds that an observer may hold up a teardown, or the end of any phase."""
_log = logging.getLogger("claw")


class Manager(pluggy.PluginManager):
    """Takes undecorated methods with the names of hooks for their implementations."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """See pluggy; None means that the method is no hook."""
        if name not in HOOKS and name != "around":
            return None
        function = getattr(plugin, name)
        if getattr(function, "__func__", None) in OPTIONAL:
            return None  # the default of the base class only says that there is none
        return super().parse_hookimpl_opts(plugin, name) or pluggy.HookimplOpts(
            wrapper=False,
            hookwrapper=False,
            optionalhook=False,
            tryfirst=False,
            trylast=False,
            specname=None,
        )


class Observers:
    """The observers of one runtime, from the outermost to the innermost.

    Raises:
        PluginError: one has another signature than `Observer.around`.
    """

    def __init__(self, observers: Iterable[object]) -> None:
        self._manager = observer_manager(observers)
        self._lingering: set[asyncio.Task[BaseException | None]] = set()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._manager.get_plugins())

    @contextlib.asynccontextmanager
    async def around(self, phase: Phase) -> AsyncIterator[None]:
        """Hold every observer around a block; its error is what comes out, if it has one.

        Raises:
            ClawError: an observer denied the phase, which must not happen then; never on teardown.
        """
        held: list[Watch] = []
        try:
            await self._enter(phase, held)
            yield
        except BaseException as error:
            phase.error = error
            await self._leave(phase, held, error)
            raise
        await self._leave(phase, held, None)

    async def _enter(self, phase: Phase, held: list[Watch]) -> None:
        must_run = phase.name == "teardown"
        for implementation in reversed(self._manager.hook.around.get_hookimpls()):
            watch = Watch(implementation, phase)
            self._lingering.add(watch.task)  # the loop itself holds tasks only weakly
            watch.task.add_done_callback(self._lingering.discard)
            failure = await watch.enter(OBSERVER_DEADLINE if must_run else None)
            if failure is None:
                held.append(watch)
            elif must_run:
                _log.error("observer %s failed before teardown: %r", watch.name, failure)
            elif isinstance(failure, ClawError):
                raise failure.at(**where(phase.runtime, phase.name, phase.instance))
            else:
                raise Denied(
                    f"the observer {watch.name} denied it: {text_of(failure)}",
                    **where(phase.runtime, phase.name, phase.instance),
                ) from failure

    async def _leave(self, phase: Phase, held: list[Watch], error: BaseException | None) -> None:
        while held:
            watch = held.pop()
            try:
                failure = await watch.leave(error)
            except asyncio.CancelledError:
                for other in held:
                    other.release(error)  # they end in their own tasks; nobody waits any longer
                raise
            if failure is not None and failure is not error:
                _log.error("observer %s failed after %s: %r", watch.name, phase.name, failure)


class Watch:
    """One observer around one phase, in a task of its own.

    So its time-outs and cancellations cannot reach the backend, its context manager is left in the
    task that entered it, and one that hangs can be left behind.
    """

    def __init__(self, implementation: pluggy.HookImpl, phase: Phase) -> None:
        self.name = implementation.plugin_name
        loop = asyncio.get_running_loop()
        self._entered: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[BaseException | None] = loop.create_future()
        self.task = asyncio.create_task(self._attend(implementation, phase))

    async def _attend(self, implementation: pluggy.HookImpl, phase: Phase) -> BaseException | None:
        """Go through the observer's whole context, and return what it raised."""
        try:
            manager: Any = implementation.function(*([phase] if implementation.argnames else []))
            if manager is None:
                return None
            if not hasattr(manager, "__aenter__"):
                if inspect.iscoroutine(manager):
                    manager.close()
                kind = type(manager).__name__
                return TypeError(f"around returned {kind}, which is no async context manager")
            await manager.__aenter__()
            self._entered.set_result(None)
            error = await self._ended
            await manager.__aexit__(
                type(error) if error else None, error, error.__traceback__ if error else None
            )
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit in a task would end the loop
            return error
        return None

    async def enter(self, timeout: float | None) -> BaseException | None:
        """Return when the observer has entered, or why it has not."""
        try:
            await asyncio.wait(
                (self.task, self._entered), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        except asyncio.CancelledError as error:
            self._abandon(error)
            await asyncio.wait((self.task,), timeout=OBSERVER_DEADLINE)
            raise
        if self._entered.done():
            return None
        if self.task.done():
            return self.task.result()
        failure = TimeoutError(f"did not enter within {timeout:g} s")
        self._abandon(failure)
        return failure

    def _abandon(self, error: BaseException) -> None:
        """Wait no longer; should it enter in spite of all, it is to leave at once."""
        self.release(error)
        self.task.cancel()

    def release(self, error: BaseException | None) -> None:
        """Tell the observer how the phase ended."""
        if not self._ended.done():
            self._ended.set_result(error)

    async def leave(self, error: BaseException | None) -> BaseException | None:
        """Return when the observer has left or had its time, with what it raised."""
        self.release(error)
        done, _ = await asyncio.wait((self.task,), timeout=OBSERVER_DEADLINE)
        if done:
            return self.task.result()
        self.task.cancel()
        return TimeoutError(f"did not leave within {OBSERVER_DEADLINE:g} s")


def observer_manager(observers: Iterable[object]) -> pluggy.PluginManager:
    """Return a manager that holds these observers, from the outermost to the innermost.

    Raises:
        PluginError: one has another signature than `Observer.around`.
    """
    manager = Manager(NAMESPACE)
    manager.add_hookspecs(Observer)
    for observer in reversed(list(observers)):  # pluggy calls the last one first
        kind = observer if inspect.ismodule(observer) else type(observer)
        label = str(getattr(observer, "name", None) or kind.__name__)
        taken = manager.has_plugin(label)
        register(manager, observer, f"{label} at {id(observer):#x}" if taken else label)
    return manager


def register(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    """Add a plugin to a manager.

    Raises:
        PluginError: it does not fit the hooks.
    """
    try:
        manager.register(plugin, name)
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(
            f"the plugin {name} does not fit the hooks: {' '.join(str(error).split())}",
            remedy="compare its methods with claw_core.hookspecs",
        ) from error


def where(runtime: str, phase: str, instance: Instance | None) -> dict[str, Any]:
    """Say where an error happened, as `ClawError` takes it."""
    return {"runtime": runtime, "phase": phase, "instance": instance.name if instance else None}


def text_of(error: BaseException) -> str:
    """Return the type of an exception and what it says, if it can say anything."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the exceptions of plugins are their own code
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
