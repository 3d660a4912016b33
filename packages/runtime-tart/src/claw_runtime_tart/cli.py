"""The `tart` command: every call with a deadline, and what it means when it fails.

Exit codes alone say little (1 is everything, 2 has two readings), so errors are told by exit code
and text; texts are those of Tart 2.27 to 2.35.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from claw_core import tools
from claw_core.errors import CapacityExhausted, RuntimeFault
from claw_core.host import Host
from claw_core.tools import Completed

HOMEBREW: Final = "/opt/homebrew/bin/tart"
OLDEST: Final = (2, 28)
"""The first version with everything that is used here."""
CALL_TIMEOUT: Final = 30.0
"""Seconds for a call that only looks or changes little: Tart's locks wait for ever."""
INSTALL: Final = "brew install openai/tools/tart"
PASSWORD: Final = "TART_VM_PASSWORD"  # noqa: S105 - the name of one

_TRANSIENT: Final = (
    "because there is no such file",
    "doesn’t exist",  # noqa: RUF001 - as macOS writes it
    "Truncated(",
)
"""A virtual machine or a temporary directory went, or a file was being written: the same call can
succeed a moment later."""


class TartError(RuntimeFault):
    """A call of `tart` failed.

    Args:
        done: how it ended.
        what: what it was to do.
    """

    def __init__(self, done: Completed, what: str) -> None:
        said = text_of(done)
        super().__init__(
            f"tart cannot {what}: {said or 'it said nothing'} (exit code {done.code})",
            remedy=remedy_for(said) or f"see what this says: {' '.join(done.argv)}",
        )
        self.code = done.code
        self.said = said

    @property
    def transient(self) -> bool:
        """Whether the same call can succeed a moment later."""
        return self.code == 1 and any(text in self.said for text in _TRANSIENT)


class GuestLost(RuntimeFault):
    """A guest that was reached cannot be reached any more; how its commands end is unknown."""


def text_of(done: Completed) -> str:
    """What a call said about its failure, without the noise that also successful ones make."""
    for stream in (done.stderr, done.stdout):
        lines = [line for line in stream.decode(errors="replace").splitlines() if line]
        if kept := [line for line in lines if "Failed to perform garbage collection" not in line]:
            return " ".join(kept)[:1000].removeprefix("Error: ")
    return ""


_REMEDIES: Final[Mapping[str, str]] = {
    "out of space": "free disk space where Tart keeps its machines (~/.tart), see: tart prune",
    "exceeds the system limit": "end other macOS virtual machines; a host runs two at most",
    "maximum supported number": "end other macOS virtual machines; if there are none, restart "
    "the Mac: the system has lost count",
    "SecKeyCreateRandomKey": "unlock the login keychain: security unlock-keychain",
    "generate keypair": "unlock the login keychain: security unlock-keychain",
    "Interaction is not allowed": "unlock the login keychain: security unlock-keychain",
    "softnet not found": "brew install openai/tools/softnet",
    "Softnet process terminated": "give softnet its rights: see docs/how-to/use-tart.md",
    "LessThanMinimalResources": "ask for at least what the image needs (macOS: 4 CPUs, 4 GB)",
    "Failed to lock auxiliary storage": "end the other process that runs this virtual machine",
    "Only Linux VMs are supported": "macOS guests need Apple silicon; use a Linux image here",
    "Darwin VMs are only supported": "macOS guests need Apple silicon; use a Linux image here",
}
_FULL: Final = ("exceeds the system limit", "maximum supported number of active virtual machines")


def remedy_for(said: str) -> str | None:
    """What to do about a failure that Tart tells by this text."""
    return next((remedy for text, remedy in _REMEDIES.items() if text in said), None)


def fault(said: str, what: str) -> RuntimeFault:
    """The error for what a virtual machine's own process said before it ended."""
    kind = CapacityExhausted if any(text in said for text in _FULL) else RuntimeFault
    return kind(f"{what}: {said or 'it said nothing'}", remedy=remedy_for(said))


@attrs.frozen
class Tart:
    """The command, and the directory that it works on.

    Args:
        executable: absolute path.
        home: `TART_HOME`.
        without: names of secrets in our environment, which are no concern of Tart's.
    """

    executable: str
    home: Path
    without: tuple[str, ...] = (PASSWORD,)

    @staticmethod
    def find(name: str | None) -> str:
        """The absolute path of the command, or the name that was not found.

        A service's PATH often lacks Homebrew's directory, which is therefore looked into as well.
        """
        found = shutil.which(name or "tart") or (None if name else shutil.which(HOMEBREW))
        return os.path.abspath(found) if found else name or "tart"  # noqa: PTH100 - not resolved

    @property
    def installed(self) -> bool:
        """Whether the command is there."""
        return shutil.which(self.executable) is not None

    def environment(self) -> dict[str, str]:
        """The environment of every call: nothing of ours is pruned behind our back."""
        own = {name: value for name, value in os.environ.items() if name not in self.without}
        # A service's PATH lacks Homebrew's directory, where Tart looks for softnet.
        places = own.get("PATH"), os.path.dirname(self.executable)
        path = ":".join(filter(None, places))
        return {**own, "PATH": path, "TART_HOME": str(self.home), "TART_NO_AUTO_PRUNE": "1"}

    def softnet(self) -> str | None:
        """The command that closes a guest's network, where Tart will find it."""
        return shutil.which("softnet", path=self.environment()["PATH"])

    async def call(
        self,
        *arguments: str,
        host: Host | None = None,
        mutates: bool = False,
        timeout: float = CALL_TIMEOUT,
    ) -> Completed:
        """Make a call and return how it ended, whatever that means.

        Args:
            *arguments: verb and its arguments; no secrets.
            host: of the instance that it is about; None where it is about none.
            mutates: a reaper must wait while it is at work.
            timeout: seconds until it is killed.

        Raises:
            RuntimeFault: it cannot be started, or did not end in time.
        """
        argv, env = (self.executable, *arguments), self.environment()
        if host is None:
            return await tools.run(argv, env=env, timeout=timeout)
        return await host.run(argv, mutates=mutates, env=env, timeout=timeout)

    async def version(self) -> str:
        """What `tart --version` says: `2.32.1`, or `SNAPSHOT` of a build of one's own.

        Raises:
            RuntimeFault: it does not say so.
        """
        done = await self.call("--version", timeout=10.0)
        found = re.search(rb"^(\d+\.\d\S*|SNAPSHOT)$", done.stdout, re.MULTILINE)
        if found is None:
            raise TartError(done, "say its version")
        return found[1].decode()


def supported(version: str) -> bool:
    """Whether this version has what is needed; unknown ones are newer."""
    numbers = version.split(".")[:2]
    return not all(part.isdigit() for part in numbers) or tuple(map(int, numbers)) >= OLDEST
