"""Calls of Apple's `container` command: each has a deadline, none a terminal or a shell.

Options stand before the first positional argument, as everything behind it is passed on; for the
same reason there is never a `--`. None of the calls takes the op-lock: what they ask for is done by
a service that carries on without them, so a settle time covers it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any, Final, Protocol, Self

import attrs

from claw_core import tools
from claw_core.capture import Capture
from claw_core.errors import RuntimeFault
from claw_core.host import Host
from claw_core.model import IO
from claw_core.tools import Completed
from claw_runtime_apple.errors import START, ContainerSilent, ContainerUnavailable, failure

Version = tuple[int, int, int]

OLDEST: Final[Version] = (0, 8, 0)
"""Before it, more than 64 KiB of standard input hang (apple/containerization#477)."""
PATIENCE: Final = 4.0
"""Seconds that a call has which only asks; core waits 10 for an answer that may take two."""
_GROUPS: Final = frozenset({"image", "system"})
_NUMBER: Final = re.compile(r"version (\d+)\.(\d+)(?:\.(\d+))?")


class Run(Protocol):
    """Runs a tool to its end, as `Host.run` does."""

    async def __call__(self, argv: Sequence[str], /, *, timeout: float = 60.0) -> Completed:
        """Return how it ended."""
        ...


async def run(argv: Sequence[str], /, *, timeout: float = 60.0) -> Completed:
    """Run a tool where there is no instance, and keep all that it writes: a listing may be long.

    Raises:
        RuntimeFault: it cannot be started.
        OutputLimitExceeded: it wrote more than 64 MiB.
        TimeoutError: it did not end in time, and was killed.
    """
    out, err = Capture(), Capture()
    async with asyncio.timeout(timeout):
        done = await tools.stream(argv, IO(None, out, err))
    return Completed(tuple(argv), done.code, bytes(out.data), bytes(err.data))


@attrs.define(eq=False)
class Cli:
    """The command.

    Attributes:
        program: its path.
    """

    program: str
    _run: Run = run
    _version: Version | None = None

    def of(self, host: Host) -> Self:
        """The same, called on behalf of an instance."""
        return attrs.evolve(self, run=host.run)

    async def ask(self, *arguments: str, timeout: float | None = None) -> Completed:
        """Return how a call ended, whatever its exit code.

        Args:
            arguments: of the command.
            timeout: seconds that it has; None is `PATIENCE`.

        Raises:
            ContainerSilent: it did not end in time, and was killed.
            RuntimeFault: the command cannot be started.
        """
        seconds = PATIENCE if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                # Its own deadline is only there for the runner to have one.
                return await self._run((self.program, *arguments), timeout=seconds + 60)
        except TimeoutError:
            raise ContainerSilent(
                f"`container {asked(arguments)}` did not answer within {seconds:g} s",
                remedy=f"see `container system status`, then {START}; if that hangs, log in again",
            ) from None

    async def call(self, *arguments: str, timeout: float | None = None) -> Completed:
        """Return how a call ended that must succeed.

        Raises:
            ContainerError: it failed.
            ContainerUnavailable: the service does not answer.
            ContainerSilent: it did not end in time.
        """
        done = await self.ask(*arguments, timeout=timeout)
        if done.code:
            raise failure(done.code, done.stderr, asked(arguments))
        return done

    async def version(self) -> Version:
        """Return the version of the command, which needs no service for that.

        Raises:
            ContainerUnavailable: it is too old, or says no version.
        """
        if self._version is None:
            done = await self.call("--version")
            match = _NUMBER.search(done.stdout.decode(errors="replace"))
            if match is None:
                raise ContainerUnavailable(
                    f"{self.program} says no version", remedy="install Apple's container 1.0"
                )
            self._version = (int(match[1]), int(match[2]), int(match[3] or 0))
        if self._version < OLDEST:
            raise ContainerUnavailable(
                f"container {dotted(self._version)} is too old: it hangs on longer input",
                remedy="install container 1.0 or later",
            )
        return self._version

    async def check_service(self) -> None:
        """Return when the service runs. Only the exit code tells: the words vary by version.

        Raises:
            ContainerUnavailable: it does not.
        """
        done = await self.ask("system", "status")
        if done.code:
            said = (done.stdout or done.stderr).decode(errors="replace").strip()
            raise ContainerUnavailable(
                f"the service of `container` does not run: {said.partition(chr(10))[0]}",
                remedy=f"{START} (in the same login session)",
            )


def document(done: Completed) -> Any:
    """Return the JSON that a call wrote.

    Raises:
        RuntimeFault: it is none, or not all of it.
    """
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        raise RuntimeFault(
            f"`container {asked(done.argv[1:])}` gave no whole answer: {error}",
            remedy="try again; see `container system logs`",
        ) from error


def asked(arguments: Sequence[str]) -> str:
    """The words of a call that say what it is about."""
    return " ".join(arguments[: 2 if arguments[0] in _GROUPS else 1])


def dotted(version: Version) -> str:
    """A version as people write it."""
    return ".".join(map(str, version))
