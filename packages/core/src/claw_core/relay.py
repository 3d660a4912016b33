"""One backend behind a typed interface, with observers held around its phases.

A private plugin manager per runtime holds just that backend, so exactly one implementation runs by
construction.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

from claw_core import events
from claw_core.discovery import Origin
from claw_core.errors import ClawError, RuntimeFault, Unsupported
from claw_core.hookspecs import NAMESPACE, Phase, Runtime
from claw_core.isolation import Isolation
from claw_core.model import (
    IO,
    Assessment,
    Command,
    Description,
    Exit,
    Instance,
    Refusal,
    Sink,
    Snapshot,
    SnapshotTarget,
    Spec,
)
from claw_core.observing import HOOKS, Manager, Observers, register, text_of, where

__all__ = ["HOOKS", "Relay"]

_RESULTS: Final[Mapping[str, tuple[type, ...]]] = {
    "describe": (Description,),
    "assess": (Assessment, Refusal),
    "execute": (Exit,),
    "list_instances": (frozenset,),
    "snapshot": (str,),
    "list_snapshots": (frozenset,),
    "search": (frozenset,),
}
_MEMBERS: Final[Mapping[str, type]] = {
    "list_instances": str,
    "list_snapshots": Snapshot,
    "search": str,
}
ANSWER_TIMEOUT = 10.0
"""Seconds that a backend has to describe itself or to assess a spec."""
_log = logging.getLogger("claw")


class Relay(Runtime):
    """A runtime whose every call reaches exactly one backend, and fails only with a `ClawError`.

    Args:
        name: name of the runtime.
        backend: the one implementation.
        observers: objects with a method `around`, from the outermost to the innermost.
        listener: told when a phase of an instance starts and ends.
        settings: what the backend was made from; by default what it says itself.
        origin: the distribution that it comes from, for errors.

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
        origin: Origin | None = None,
    ) -> None:
        super().__init__(getattr(backend, "settings", {}) if settings is None else settings)
        self.name = name
        self._plugin = f"the plugin {name} of {origin}" if origin else f"the plugin {name}"
        self._origin = origin
        self._listener = listener
        self._backend = Manager(NAMESPACE)
        self._backend.add_hookspecs(Runtime)
        register(self._backend, backend, name)
        self._observers = Observers(observers)

    def supports(self, hook: str) -> bool:
        """Whether the backend implements this hook, itself or by a usable default."""
        return hook in HOOKS and bool(getattr(self._backend.hook, hook).get_hookimpls())

    async def describe(self) -> Description:
        """Say what the runtime offers here; a backend that cannot even say so is unavailable."""
        try:
            return await self._ask("describe")  # type: ignore[no-any-return]
        except ClawError as error:
            return Description(available=False, reason=error.message, remedy=error.remedy)

    async def assess(self, spec: Spec) -> Assessment | Refusal:
        """Ask the backend what this spec will get.

        Raises:
            ClawError: the backend failed to answer, or did not within `ANSWER_TIMEOUT`.
        """
        return await self._ask("assess", spec=spec)  # type: ignore[no-any-return]

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

    async def list_snapshots(self, install: str) -> frozenset[Snapshot]:
        """Ask the backend for its own listing.

        Raises:
            ClawError: there is no listing, so nothing may be concluded about any snapshot.
        """
        return await self._call("list_snapshots", install=install)  # type: ignore[no-any-return]

    async def delete_snapshot(self, name: str) -> None:
        """Delete a snapshot for inspection.

        Raises:
            ClawError: it may still be there.
        """
        await self._call("delete_snapshot", name=name)

    async def search(self, instance: Instance, texts: tuple[str, ...]) -> frozenset[str]:
        """Look for texts on the disk, with the observers around it."""
        return await self._phase("search", instance, texts=texts)  # type: ignore[return-value]

    async def stop(self, instance: Instance) -> None:
        """End what runs in the instance, with the observers around it.

        Raises:
            Unsupported: see `supports`.
        """
        await self._phase("stop", instance)

    async def _ask(self, hook: str, **arguments: object) -> Any:
        """Call a hook that only answers, and has a limited time for it."""
        limit = asyncio.timeout(ANSWER_TIMEOUT)
        try:
            async with limit:
                return await self._call(hook, **arguments)
        except (TimeoutError, ClawError) as error:
            if limit.expired():
                raise self.silent(hook) from error
            raise

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
        if not self._observers:
            return await self._call(hook, instance=instance, **arguments)
        phase = Phase(hook, self.name, instance, command)
        async with self._observers.around(phase):
            started = time.monotonic()
            try:
                result = await self._call(hook, instance=instance, **arguments)
            finally:
                phase.seconds = time.monotonic() - started
            phase.result = result  # what an observer makes of it stays with the observers
        return result

    async def _call(self, hook: str, **arguments: object) -> Any:
        """Call a hook of the backend, and let out nothing but `ClawError` and cancellation."""
        instance = arguments.get("instance")
        assert instance is None or isinstance(instance, Instance)
        place = where(self.name, hook, instance)
        if not self.supports(hook):
            raise Unsupported(f"this runtime has no {hook}", **place)
        try:
            result: Any = await getattr(self._backend.hook, hook)(**arguments)
        except ClawError as error:
            error.at(**place)
            raise
        except (Exception, SystemExit) as error:
            text = instance.host.redact(text_of(error)) if instance else text_of(error)
            raise RuntimeFault(
                f"hook {hook} of {self._plugin} failed: {text}",
                remedy=f"report this to the authors of {self._plugin}",
                **place,
            ) from error
        expected = _RESULTS.get(hook, (object,))
        member = _MEMBERS.get(hook, object)
        members = result if isinstance(result, frozenset) else ()
        if not isinstance(result, expected) or not all(isinstance(one, member) for one in members):
            wanted = " or ".join(kind.__name__ for kind in expected)
            raise RuntimeFault(
                f"hook {hook} of {self._plugin} returned {type(result).__name__}"
                f" where {wanted}{f' of {member.__name__}' if hook in _MEMBERS else ''} is due",
                remedy=f"report this to the authors of {self._plugin}",
                **place,
            )
        if odd := _odd(result):
            raise RuntimeFault(
                f"hook {hook} of {self._plugin} returned {odd}",
                remedy=f"report this to the authors of {self._plugin}",
                **place,
            )
        return result

    def silent(self, hook: str) -> RuntimeFault:
        """What to raise when the backend does not answer a question."""
        name = self._origin.distribution if self._origin else self.name
        return RuntimeFault(
            f"hook {hook} of {self._plugin} did not answer within {ANSWER_TIMEOUT:g} s",
            runtime=self.name,
            phase=hook,
            remedy=f"see that what it drives answers; else pip install --upgrade {name}, "
            f"or pip uninstall {name}",
        )

    def _tell(self, event: events.Event) -> None:
        try:
            self._listener(event)
        except Exception as error:  # noqa: BLE001 - a progress line must not prevent a teardown
            _log.error("the listener failed on %s: %r", type(event).__name__, error)


def _odd(result: object) -> str | None:
    """What is wrong in an answer of the right type, where core would rely on it."""
    if isinstance(result, Assessment | Description) and not isinstance(result.isolation, Isolation):
        return f"{result.isolation!r} where a level of isolation is due"
    if isinstance(result, Assessment) and result.network not in {"none", "default"}:
        return f"the network {result.network!r}"
    return None
