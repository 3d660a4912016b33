"""What core gives a backend for one instance: run a tool, record a fact, fetch a secret, report."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from claw_core import events
from claw_core.errors import ConfigError, RuntimeFault
from claw_core.redaction import Redactor
from claw_core.tasks import in_thread, persist

if TYPE_CHECKING:
    from claw_core.ledger import Lease

OUTPUT_LIMIT = 1 << 20
"""Bytes of each stream of a tool that are kept; more is dropped, and said in `Completed`."""


@attrs.frozen
class Completed:
    """How a tool ended; its output is capped at `OUTPUT_LIMIT` bytes per stream."""

    argv: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False


@attrs.define(eq=False)
class Host:
    """Core's side of one instance; backends get it as `instance.host`.

    Args:
        lease: the instance's entry in the ledger, held by this process.
        runtime: name of the runtime, for events.
        secrets: values of the secrets that the spec names.
        listener: gets progress events.
    """

    _lease: Lease
    runtime: str
    _secrets: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    _listener: events.Listener = events.ignore
    _redactor: Redactor = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._redactor = Redactor(self._secrets)

    @property
    def facts(self) -> Mapping[str, str]:
        """What was recorded for this instance so far, in this or an earlier process."""
        return self._lease.facts

    async def record(self, key: str, value: str) -> None:
        """Write a non-secret fact to the ledger before the effect that a later process must undo.

        Raises:
            LedgerUnavailable: the fact could not be made durable.
        """
        for secret in self._secrets.values():
            if secret and secret in value:
                raise RuntimeFault(f"the fact {key!r} contains a secret", runtime=self.runtime)
        await in_thread(self._lease.record, key, value)

    def secret(self, name: str) -> str:
        """Return the value of a secret that the spec names; never write it anywhere.

        Raises:
            ConfigError: the secret is not available to this process.
        """
        try:
            return self._secrets[name]
        except KeyError:
            raise ConfigError(
                f"the secret {name} is not available", remedy=f"set {name} in the environment"
            ) from None

    def progress(self, text: str) -> None:
        """Tell whoever watches what is happening inside the phase."""
        self._listener(events.Progress(self.runtime, self._lease.name, self.redact(text)))

    def redact(self, text: str) -> str:
        """Replace every secret value in a text by `[secret NAME]`."""
        return self._redactor(text)

    def inherited(self) -> tuple[int, ...]:
        """Descriptors that a child must inherit while its effect is in flight: the op-lock.

        A reaper waits until every process that holds them is gone, so close them as soon as the
        child can be found by `list_instances`.
        """
        return (self._lease.op_lock(),)

    async def run(
        self,
        argv: Sequence[str],
        *,
        mutates: bool = False,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> Completed:
        """Run a tool of the host to its end, without a shell.

        Args:
            argv: program and arguments; must not contain secrets.
            mutates: the tool changes the backend, so a reaper must wait while it is alive.
            stdin: bytes for its standard input.
            env: its whole environment; None is this process's own.
            timeout: seconds until it is killed.

        Raises:
            RuntimeFault: the tool cannot be started, or did not end in time (and was killed).
        """
        self._refuse_secrets(argv)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=env,
                pass_fds=self.inherited() if mutates else (),
                start_new_session=True,
            )
        except OSError as error:
            raise RuntimeFault(
                f"cannot run {argv[0]}: {error.strerror}", runtime=self.runtime
            ) from error
        try:
            async with asyncio.timeout(timeout):
                stdout, stderr, _ = await asyncio.gather(
                    _read(process.stdout), _read(process.stderr), _feed(process.stdin, stdin)
                )
                code = await process.wait()
        except TimeoutError:
            raise RuntimeFault(
                f"{argv[0]} did not end within {timeout:g} s and was killed", runtime=self.runtime
            ) from None
        finally:
            await _kill(process)
        return Completed(tuple(argv), code, stdout[0], stderr[0], stdout[1] or stderr[1])

    def _refuse_secrets(self, argv: Sequence[str]) -> None:
        for argument in argv:
            for name, value in self._secrets.items():
                if value and value in argument:
                    raise RuntimeFault(
                        f"an argument of {argv[0]} contains the secret {name}", runtime=self.runtime
                    )


async def _read(stream: asyncio.StreamReader | None) -> tuple[bytes, bool]:
    assert stream is not None
    kept = bytearray()
    truncated = False
    while chunk := await stream.read(1 << 16):
        room = OUTPUT_LIMIT - len(kept)
        kept += chunk[:room]
        truncated = truncated or len(chunk) > room
    return bytes(kept), truncated


async def _feed(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    assert stream is not None
    try:
        stream.write(data)
        await stream.drain()
        stream.close()
    except (BrokenPipeError, ConnectionResetError):
        stream.close()  # the tool does not want its input: its exit code says what it thinks


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End the tool and everything in its session, however often this task is cancelled."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await persist(process.wait())
