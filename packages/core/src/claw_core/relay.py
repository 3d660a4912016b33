"""One backend behind a typed interface, with observers held around its phases.

A private plugin manager per runtime holds just that backend, so exactly one implementation runs by
construction. Observers stand in a second manager and are held by our own loop: a coroutine is never
None to `firstresult`, and a pluggy wrapper failing before its `yield` would cancel a teardown.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

import pluggy

from claw_core import events
from claw_core.errors import ClawError, Denied, PluginError, RuntimeFault, Unsupported
from claw_core.hookspecs import NAMESPACE, Observer, Phase, Runtime
from claw_core.model import (
    IO,
    Assessment,
    Command,
    Description,
    Exit,
    Instance,
    Refusal,
    Sink,
    SnapshotTarget,
    Spec,
)

HOOKS: Final = tuple(name for name, value in vars(Runtime).items() if hasattr(value, "claw_spec"))
"""The names of all hooks, in the order of the contract."""

OBSERVER_DEADLINE = 5.0
"""Seconds that an observer may hold up a teardown, or the end of any phase."""

_RESULTS: Final[Mapping[str, tuple[type, ...]]] = {
    "describe": (Description,),
    "assess": (Assessment, Refusal),
    "execute": (Exit,),
    "list_instances": (frozenset,),
    "snapshot": (str,),
}
_log = logging.getLogger("claw")


class _Plain(pluggy.PluginManager):
    """Takes undecorated methods with the names of hooks for their implementations."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        if name not in HOOKS and name != "around":
            return None
        function = getattr(plugin, name)
        if getattr(function, "__func__", None) is Runtime.snapshot:
            return None  # the default of the base class only says that there is none
        return super().parse_hookimpl_opts(plugin, name) or pluggy.HookimplOpts(
            wrapper=False,
            hookwrapper=False,
            optionalhook=False,
            tryfirst=False,
            trylast=False,
            specname=None,
        )


class Relay(Runtime):
    """A runtime whose every call reaches exactly one backend, and fails only with a `ClawError`.

    Args:
        name: name of the runtime.
        backend: the one implementation.
        observers: objects with a method `around`, from the outermost to the innermost.
        listener: told when a phase of an instance starts and ends.
        settings: what the backend was made from; by default what it says itself.

    Raises:
        PluginError: a hook or an observer does not fit its specification.
    """

    def __init__(
        self,
        name: str,
        backend: Runtime,
        observers: Iterable[object] = (),
        listener: events.Listener = events.ignore,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(getattr(backend, "settings", {}) if settings is None else settings)
        self.name = name
        self._listener = listener
        self._backend = _Plain(NAMESPACE)
        self._backend.add_hookspecs(Runtime)
        _register(self._backend, backend, name)
        self._observers = observer_manager(observers)
        self._lingering: set[asyncio.Task[BaseException | None]] = set()

    def supports(self, hook: str) -> bool:
        """Whether the backend implements this hook, itself or by a usable default."""
        return hook in HOOKS and bool(getattr(self._backend.hook, hook).get_hookimpls())

    async def describe(self) -> Description:
        """Say what the runtime offers here; a backend that cannot even say so is unavailable."""
        try:
            return await self._call("describe")  # type: ignore[no-any-return]
        except ClawError as error:
            return Description(available=False, reason=error.message, remedy=error.remedy)

    async def assess(self, spec: Spec) -> Assessment | Refusal:
        """Ask the backend what this spec will get.

        Raises:
            ClawError: the backend failed to answer.
        """
        return await self._call("assess", spec=spec)  # type: ignore[no-any-return]

    async def prepare(self, instance: Instance) -> None:
        """Allocate the instance, with the observers around it."""
        await self._phase("prepare", instance)

    async def start(self, instance: Instance) -> None:
        """Start the instance, with the observers around it."""
        await self._phase("start", instance)

    async def execute(self, instance: Instance, command: Command, io: IO) -> Exit:
        """Run a command, with the observers around it."""
        result = await self._phase("execute", instance, command=command, io=io)
        assert isinstance(result, Exit)
        return result

    async def teardown(self, instance: Instance) -> None:
        """Tear the instance down, whatever the observers do.

        Raises:
            ClawError: the backend's own failure, and never one of an observer.
        """
        await self._phase("teardown", instance)

    async def list_instances(self, install: str) -> frozenset[str]:
        """Ask the backend for its own listing.

        Raises:
            ClawError: there is no listing, so nothing may be concluded about any instance.
        """
        return await self._call("list_instances", install=install)  # type: ignore[no-any-return]

    async def upload(self, instance: Instance, archive: AsyncIterator[bytes], target: str) -> None:
        """Unpack a tar stream inside the instance, with the observers around it."""
        await self._phase("upload", instance, archive=archive, target=target)

    async def download(self, instance: Instance, source: str, sink: Sink) -> None:
        """Fetch a tar stream from the instance, with the observers around it."""
        await self._phase("download", instance, source=source, sink=sink)

    async def snapshot(self, instance: Instance, target: SnapshotTarget) -> str:
        """Keep the disk, with the observers around it.

        Raises:
            Unsupported: see `supports`.
        """
        result = await self._phase("snapshot", instance, target=target)
        assert isinstance(result, str)
        return result

    async def _phase(self, hook: str, instance: Instance, **arguments: object) -> object:
        """Call a hook between its events and inside its observers."""
        started = time.monotonic()
        self._tell(events.PhaseStarted(self.name, instance.name, hook))
        error: str | None = None
        try:
            return await self._observed(hook, instance, arguments)
        except BaseException as failure:
            error = str(failure) or type(failure).__name__
            raise
        finally:
            seconds = time.monotonic() - started
            self._tell(events.PhaseEnded(self.name, instance.name, hook, seconds, error))

    async def _observed(
        self, hook: str, instance: Instance, arguments: Mapping[str, object]
    ) -> object:
        command = arguments.get("command")
        assert command is None or isinstance(command, Command)
        phase = Phase(hook, self.name, instance, command)
        held: list[_Watch] = []
        try:
            await self._enter(phase, held)
            started = time.monotonic()
            try:
                result = await self._call(hook, instance=instance, **arguments)
            finally:
                phase.seconds = time.monotonic() - started
        except BaseException as error:
            phase.error = error
            await self._leave(phase, held, error)
            raise
        phase.result = result  # what an observer makes of it stays with the observers
        await self._leave(phase, held, None)
        return result

    async def _enter(self, phase: Phase, held: list[_Watch]) -> None:
        must_run = phase.name == "teardown"
        for implementation in reversed(self._observers.hook.around.get_hookimpls()):
            watch = _Watch(implementation, phase)
            self._lingering.add(watch.task)  # the loop itself holds tasks only weakly
            watch.task.add_done_callback(self._lingering.discard)
            failure = await watch.enter(OBSERVER_DEADLINE if must_run else None)
            if failure is None:
                held.append(watch)
            elif must_run:
                _log.error("observer %s failed before teardown: %r", watch.name, failure)
            elif isinstance(failure, ClawError):
                raise failure.at(**_where(self.name, phase.name, phase.instance))
            else:
                raise Denied(
                    f"the observer {watch.name} denied it: {text_of(failure)}",
                    **_where(self.name, phase.name, phase.instance),
                ) from failure

    async def _leave(self, phase: Phase, held: list[_Watch], error: BaseException | None) -> None:
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

    async def _call(self, hook: str, **arguments: object) -> Any:
        """Call a hook of the backend, and let out nothing but `ClawError` and cancellation."""
        instance = arguments.get("instance")
        assert instance is None or isinstance(instance, Instance)
        where = _where(self.name, hook, instance)
        if not self.supports(hook):
            raise Unsupported(f"this runtime has no {hook}", **where)
        try:
            result: Any = await getattr(self._backend.hook, hook)(**arguments)
        except ClawError as error:
            error.at(**where)
            raise
        except (Exception, SystemExit) as error:
            text = instance.host.redact(text_of(error)) if instance else text_of(error)
            raise RuntimeFault(
                f"hook {hook} of the plugin {self.name} failed: {text}",
                remedy=f"report this to the authors of the plugin {self.name}",
                **where,
            ) from error
        expected = _RESULTS.get(hook, (object,))
        names = result if isinstance(result, frozenset) else ()
        if not isinstance(result, expected) or not all(isinstance(name, str) for name in names):
            wanted = " or ".join(kind.__name__ for kind in expected)
            raise RuntimeFault(
                f"hook {hook} of the plugin {self.name} returned {type(result).__name__}"
                f" where {wanted}{' of str' * (hook == 'list_instances')} is due",
                remedy=f"report this to the authors of the plugin {self.name}",
                **where,
            )
        return result

    def _tell(self, event: events.Event) -> None:
        try:
            self._listener(event)
        except Exception as error:  # noqa: BLE001 - a progress line must not prevent a teardown
            _log.error("the listener failed on %s: %r", type(event).__name__, error)


class _Watch:
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
    manager = _Plain(NAMESPACE)
    manager.add_hookspecs(Observer)
    for observer in reversed(list(observers)):  # pluggy calls the last one first
        kind = observer if inspect.ismodule(observer) else type(observer)
        label = str(getattr(observer, "name", None) or kind.__name__)
        taken = manager.has_plugin(label)
        _register(manager, observer, f"{label} at {id(observer):#x}" if taken else label)
    return manager


def _register(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    try:
        manager.register(plugin, name)
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(
            f"the plugin {name} does not fit the hooks: {' '.join(str(error).split())}",
            remedy="compare its methods with claw_core.hookspecs",
        ) from error


def _where(runtime: str, phase: str, instance: Instance | None) -> dict[str, Any]:
    return {"runtime": runtime, "phase": phase, "instance": instance.name if instance else None}


def text_of(error: BaseException) -> str:
    """Return the type of an exception and what it says, if it can say anything."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the exceptions of plugins are their own code
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
