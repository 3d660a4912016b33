"""The contract between core and plugins. Read this first.

`Runtime` is at once the pluggy hook namespace, the base class of every backend and the static type.
Abstract hooks are mandatory, the others are capabilities. Hooks are coroutines with positional
arguments and no defaults; the contract grows by fields on the value objects, never by arguments.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar, Final

import attrs
import pluggy

from claw_core.errors import ClawError, Unsupported
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

NAMESPACE: Final = "claw"
hookspec = pluggy.HookspecMarker(NAMESPACE)
hookimpl = pluggy.HookimplMarker(NAMESPACE)
phase = hookspec(firstresult=True)

AGENT: Final = Path(__file__).with_name("agent.toml")
"""A recipe of the image of agents, for runtimes whose images are those of containers."""


class Runtime(abc.ABC):
    """A backend: subclass it and write plain `async def` methods.

    Args:
        settings: the backend's own table of the configuration. The reaper rebuilds the runtime from
            `self.settings`, so they hold no secrets; a backend adds to them what it found in its
            environment and a process with another environment needs.
    """

    api: ClassVar[int] = 1
    recipe: ClassVar[Path | None] = None
    """The recipe of the image that `claw image prepare` makes where none is named."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    @phase
    @abc.abstractmethod
    async def describe(self) -> Description:
        """Say what this runtime offers here, without side effects and without ever raising."""

    @phase
    @abc.abstractmethod
    async def assess(self, spec: Spec) -> Assessment | Refusal:
        """Say what exactly this spec will get, or why it cannot be had; no side effects."""

    @phase
    @abc.abstractmethod
    async def prepare(self, instance: Instance) -> None:
        """Allocate the instance (clone, create); nothing of the guest runs yet."""

    @phase
    @abc.abstractmethod
    async def start(self, instance: Instance) -> None:
        """Return when `execute` would work; what was stopped it starts again, in any process."""

    @phase
    @abc.abstractmethod
    async def execute(self, instance: Instance, command: Command, io: IO) -> Exit:
        """Run a command and stream it; when cancelled, end its process tree before returning.

        Raises:
            SpentInstance: the process tree cannot be ended, so only teardown may follow.
        """

    @phase
    @abc.abstractmethod
    async def teardown(self, instance: Instance) -> None:
        """Destroy the instance; return only when its absence, late creation included, was seen.

        Idempotent, and works in a fresh process from the ledger entry alone.
        """

    @phase
    @abc.abstractmethod
    async def list_instances(self, install: str) -> frozenset[str]:
        """The backend's own listing of names `claw-<install>-*`, in every state: the truth."""

    @phase
    async def upload(self, instance: Instance, archive: AsyncIterator[bytes], target: str) -> None:
        """Unpack a tar stream below the directory `target`, which is created where missing.

        The default pipes the archive into `tar` inside the instance.
        """
        errors = bytearray()
        result = await self.execute(
            instance,
            Command(
                ("tar", "-x", "-o", "-f", "-", "-C", await _directory(self, instance, target)),
                workdir=_anywhere(target),
            ),
            IO(archive, _discard, _keep(errors)),
        )
        _check(result, f"cannot unpack into {target}", errors)

    @phase
    async def download(self, instance: Instance, source: str, sink: Sink) -> None:
        """Send `source` as a tar stream whose only top-level member has its last path component.

        The default runs `tar` inside the instance.
        """
        parent, _, name = source.rstrip("/").rpartition("/")
        errors = bytearray()
        result = await self.execute(
            instance,
            Command(
                (
                    "tar",
                    "-c",
                    "-f",
                    "-",
                    "-C",
                    parent or ("/" if source.startswith("/") else "."),
                    "--",
                    name,
                ),
                workdir=_anywhere(source),
            ),
            IO(None, sink, _keep(errors)),
        )
        _check(result, f"cannot pack {source}", errors)

    @phase
    async def snapshot(self, instance: Instance, target: SnapshotTarget) -> str:
        """Keep the disk, without anything that claw delivered as a secret, and return its name.

        It may stop the instance: only teardown follows.

        Raises:
            Unsupported: this runtime keeps no snapshots.
        """
        raise _lacking("snapshot")

    @phase
    async def list_snapshots(self, install: str) -> frozenset[Snapshot]:
        """The backend's own listing of snapshots for inspection that this install has made."""
        raise _lacking("list_snapshots")

    @phase
    async def delete_snapshot(self, name: str) -> None:
        """Delete a snapshot for inspection; return only when its absence was seen. Idempotent."""
        raise _lacking("delete_snapshot")

    @phase
    async def search(self, instance: Instance, texts: tuple[str, ...]) -> frozenset[str]:
        """Return the paths of files on the disk that contain one of the texts.

        The default looks at all of the disk with `find` and `grep` inside the instance.
        """
        from claw_core.search import search  # most sessions search nothing

        return await search(functools.partial(self.execute, instance), texts)

    @phase
    async def stop(self, instance: Instance) -> None:
        """End all that runs in a persistent instance; its disk no longer needs this process."""
        raise _lacking("stop")


OPTIONAL: Final = (
    Runtime.snapshot,
    Runtime.list_snapshots,
    Runtime.delete_snapshot,
    Runtime.stop,
)
"""Hooks whose default only says that there are none."""


@attrs.define(eq=False)
class Phase:
    """What an observer sees of one phase; `result` and `error` are set when it has ended."""

    name: str
    runtime: str
    instance: Instance | None = None
    command: Command | None = None
    result: object = None
    error: BaseException | None = None
    seconds: float = 0.0


class Observer:
    """Sees the phases of every runtime, and may deny them; it can never prevent a teardown."""

    @hookspec
    def around(self, phase: Phase) -> AbstractAsyncContextManager[None] | None:
        """Return a context manager to hold around the phase, or None to stay out.

        Raising on entry denies the phase, except teardown, where it is logged. Raising on exit is
        logged, and cannot hide an error of the backend.
        """


def _lacking(hook: str) -> Unsupported:
    return Unsupported(f"this runtime has no {hook}", phase=hook)


async def _directory(runtime: Runtime, instance: Instance, target: str) -> str:
    errors = bytearray()
    result = await runtime.execute(
        instance,
        Command(("mkdir", "-p", "--", target), workdir=_anywhere(target)),
        IO(None, _discard, _keep(errors)),
    )
    _check(result, f"cannot create {target}", errors)
    return target


def _anywhere(path: str) -> str | None:
    """Where to start for an absolute path: the spec's workdir may be what is being uploaded."""
    return "/" if path.startswith("/") else None


async def _discard(data: bytes) -> None:
    """Drop a chunk of output that nobody asked for."""


def _keep(buffer: bytearray) -> Sink:
    async def sink(data: bytes) -> None:
        buffer.extend(data[: max(0, 4096 - len(buffer))])

    return sink


def _check(result: Exit, what: str, errors: bytearray) -> None:
    if result.code:
        detail = (
            result.reason or errors.decode(errors="replace").strip() or f"exit code {result.code}"
        )
        raise ClawError(f"{what} inside the instance: {detail}")
