"""A runtime without the rest of claw: a fake host, sinks that remember, and a scratch instance."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from claw_core.host import Host
from claw_core.local.runtime import LocalRuntime
from claw_core.model import IO, Command, Control, Exit, Instance, Mount, Resize, Resources, Spec
from cli.support import DAEMONS as DAEMONS
from cli.support import eventually as eventually

T = TypeVar("T")

ENGINES = ("namespaces", "guard")
PYTHON = sys.executable


class FakeHost:
    """What a runtime needs of core for one instance, without a ledger."""

    def __init__(self, secret: Mapping[str, str], inherited: Sequence[int] = ()) -> None:
        self.facts: dict[str, str] = {}
        self._secret = dict(secret)
        self._inherited = tuple(inherited)

    async def record(self, key: str, value: str) -> None:
        self.facts[key] = value

    def secret(self, name: str) -> str:
        return self._secret[name]

    def inherited(self) -> tuple[int, ...]:
        return self._inherited

    def progress(self, text: str) -> None:
        """Nobody watches."""

    def redact(self, text: str) -> str:
        return text


def instance(
    spec: Spec | None = None,
    *,
    secret: Mapping[str, str] | None = None,
    inherited: Sequence[int] = (),
    name: str | None = None,
) -> Instance:
    """An instance with a name of its own."""
    host = cast("Host", FakeHost(secret or {}, inherited))
    return Instance(name or f"claw-7e577e57-{secrets.token_hex(6)}", spec or Spec(), host)


def runtime(engine: str = "namespaces") -> LocalRuntime:
    return LocalRuntime({"engine": engine})


class Output:
    """Remembers what a sink was given."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.err = bytearray()

    async def stdout(self, data: bytes) -> None:
        self.out.extend(data)

    async def stderr(self, data: bytes) -> None:
        self.err.extend(data)

    def io(
        self,
        stdin: AsyncIterator[bytes] | None = None,
        control: AsyncIterator[Control] | None = None,
    ) -> IO:
        return IO(stdin, self.stdout, self.stderr, control)

    @property
    def text(self) -> str:
        return self.out.decode(errors="replace")


async def chunks(*data: bytes) -> AsyncIterator[bytes]:
    for one in data:
        yield one


class Session:
    """A running instance."""

    def __init__(self, backend: LocalRuntime, subject: Instance) -> None:
        self.backend = backend
        self.instance = subject

    async def run(
        self,
        *argv: str,
        stdin: AsyncIterator[bytes] | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        output: Output | None = None,
        control: AsyncIterator[Control] | None = None,
        terminal: Resize | None = None,
    ) -> tuple[Exit, str]:
        """Run a command and return its end, and its standard output followed by its errors."""
        output = output or Output()
        command = Command(argv, env or {}, workdir, terminal)
        ended = await self.backend.execute(self.instance, command, output.io(stdin, control))
        return ended, output.text + output.err.decode(errors="replace")

    async def python(self, program: str, **options: Any) -> tuple[Exit, str]:
        """Run a program with the interpreter of the system, which every engine can see."""
        return await self.run("/usr/bin/python3", "-c", program, **options)


@contextlib.asynccontextmanager
async def session(
    engine: str = "namespaces",
    spec: Spec | None = None,
    *,
    secret: Mapping[str, str] | None = None,
    inherited: Sequence[int] = (),
) -> AsyncIterator[Session]:
    """Prepare and start an instance; tear it down, and see that nothing is left of it."""
    backend = runtime(engine)
    subject = instance(spec, secret=secret, inherited=inherited)
    try:
        await backend.prepare(subject)
        await backend.start(subject)
        yield Session(backend, subject)
    finally:
        await backend.teardown(subject)
    assert await listed(backend, subject) is False
    assert not os.path.lexists(f"/tmp/{subject.name}")


async def listed(backend: LocalRuntime, subject: Instance) -> bool:
    return subject.name in await backend.list_instances(subject.name.split("-")[1])


def mounts(*wanted: Mount, **resources: Any) -> Spec:
    return Spec(mounts=wanted, resources=Resources(**resources))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, with an upper bound, for a test that hangs says nothing."""

    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(bounded())


def marked(marker: str) -> list[int]:
    """Pids of living processes, other than this one, whose command line contains a marker."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def descriptors() -> set[str]:
    """What this process holds open, other than the listing itself."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found
