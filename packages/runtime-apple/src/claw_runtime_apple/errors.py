"""How Apple's `container` fails: it is not there, it says nothing, or it says no."""

from __future__ import annotations

import itertools
from typing import Final

from claw_core.errors import RuntimeFault

USAGE: Final = 64
"""Exit code of a command line that this version does not understand."""
UNREACHABLE: Final = ("Connection invalid", "failed to get a response")
"""What a call says where no service is. An interrupted connection may be a dead helper's."""
LATE: Final = "XPC timeout"
"""What a call says that the service did not answer in time."""
START: Final = "container system start --enable-kernel-install"
"""Starts the service; without the option it would ask a question."""

_REMEDIES: Final = (
    ("Connection interrupted", "try again: the service, or a virtual machine, has died"),
    ("failed to find target executable", "use an image that has `sh` on its PATH"),
    ("is not a valid container ID", "name the instance with letters, digits and `_.-`"),
    ("already exist", "remove the container that has its name: see `container ls -a`"),
    ("minimum memory amount", "ask for more memory: 200m at least"),
    ("invalid path given", "name a path without `:`"),
    ("is not a directory", "mount a directory: a file is copied in instead"),
    ("does not exist", "check that the path is still there"),
    ("network", "see `container network list`, or run with --network none"),
    ("o space left", "free disk space, for instance with container image prune"),
    ("kernel", f"install the guests' kernel: {START}"),
)
_REFUSALS: Final = (
    "not found",
    "is not running",
    "failed to create process",
    "failed to find target executable",
)


class ContainerUnavailable(RuntimeFault):
    """There is no `container` command that can be used, or its service does not answer it."""


class ContainerSilent(RuntimeFault):
    """The command did not answer in time and was killed, or its service did not.

    Whether the service did, or still does, what it was asked is unknown.
    """


class ContainerError(RuntimeFault):
    """The command failed.

    Args:
        code: its exit code.
        said: its own words.
        asked: what it was asked for.
        remedy: what the user can do.
    """

    def __init__(self, code: int, said: str, asked: str, remedy: str | None = None) -> None:
        remedy = remedy or next(
            (one for text, one in _REMEDIES if text in said), "see `container system logs`"
        )
        super().__init__(f"`container {asked}` failed: {said} (code {code})", remedy=remedy)
        self.code = code
        self.said = said


def failure(code: int, stderr: bytes, asked: str) -> RuntimeFault:
    """What a failed call means, by its exit code and its words."""
    said = words(stderr)
    if any(text in said for text in UNREACHABLE):
        return ContainerUnavailable(
            f"the service of `container` does not answer `container {asked}`: {said}",
            remedy=f"{START} (in the same login session)",
        )
    if LATE in said:
        return ContainerSilent(
            f"the service of `container` did not answer in time: {said}", remedy="try again"
        )
    if code == USAGE:
        remedy = "install container 1.0 or later: this version lacks an option"
        return ContainerError(code, said, asked, remedy)
    return ContainerError(code, said, asked)


def refused(code: int, stderr: bytes) -> bool:
    """Whether a failed call for sure did nothing."""
    said = words(stderr)
    return code == USAGE or (code != 0 and any(text in said for text in _REFUSALS))


def words(stderr: bytes) -> str:
    """The message in what a call wrote to standard error, without progress and advice."""
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if line.startswith("Error: "):
            return " ".join(itertools.takewhile(_told, (line[7:], *lines[number + 1 :])))
    return lines[-1] if lines else "it said nothing"


def _told(line: str) -> bool:
    return not line.startswith(("Usage:", "Ensure container system service"))
