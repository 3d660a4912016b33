"""What core gives a backend for one instance: run a tool, record a fact, fetch a secret, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from claw_core import events, tools
from claw_core.errors import ConfigError, RuntimeFault
from claw_core.model import IO
from claw_core.redaction import Redactor
from claw_core.streaming import Streamed
from claw_core.tasks import in_thread
from claw_core.tools import Completed

if TYPE_CHECKING:
    from claw_core.ledger import Lease


@attrs.define(eq=False)
class Host:
    """Core's side of one instance; backends get it as `instance.host`.

    Args:
        lease: the instance's entry in the ledger, held by this process.
        runtime: name of the runtime, for events.
        secrets: values of the secrets that the spec names.
        listener: gets progress events.
        claimed: descriptors of what the instance claims of scarce things. The process that is the
            instance inherits them, so that the claim stands for as long as it lives.
    """

    _lease: Lease
    runtime: str
    _secrets: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    _listener: events.Listener = events.ignore
    claimed: tuple[int, ...] = ()
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

    def notice(self, text: str) -> None:
        """Tell the user something that does not end the run, and must not go unseen."""
        self._listener(events.Notice(self.redact(text)))

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
        descriptors = self.inherited() if mutates else ()
        try:
            return await tools.run(
                argv, stdin=stdin, env=env, timeout=timeout, descriptors=descriptors
            )
        except RuntimeFault as error:
            error.at(runtime=self.runtime)
            raise

    async def stream(
        self,
        argv: Sequence[str],
        io: IO,
        *,
        mutates: bool = False,
        env: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> Streamed:
        """Run a tool of the host in place of a command, and pass its streams and signals through.

        However this ends, cancellation included, the tool and what is in its session has ended
        then. What it started elsewhere is the backend's own concern.

        Args:
            argv: program and arguments; must not contain secrets.
            io: the streams of the command.
            mutates: as for `run`.
            env: as for `run`.
            descriptors: what it inherits beside its streams.

        Raises:
            RuntimeFault: the tool cannot be started.
        """
        self._refuse_secrets(argv)
        try:
            return await tools.stream(
                argv,
                io,
                env=env,
                descriptors=(*descriptors, *(self.inherited() if mutates else ())),
            )
        except RuntimeFault as error:
            error.at(runtime=self.runtime)
            raise

    def _refuse_secrets(self, argv: Sequence[str]) -> None:
        for argument in argv:
            for name, value in self._secrets.items():
                if value and value in argument:
                    raise RuntimeFault(
                        f"an argument of {argv[0]} contains the secret {name}", runtime=self.runtime
                    )
