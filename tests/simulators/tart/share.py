"""`--dir`: the directories that a guest shares with its host."""

from __future__ import annotations

import os
from collections.abc import Iterable

from simulators.tart.errors import Failure, Usage

AUTOMOUNT = "com.apple.virtio-fs.automount"


class Share:
    """One directory of the host; without a name it is the whole content of its tag."""

    def __init__(self, name: str, path: str, tag: str, *, read_only: bool) -> None:
        self.name = name
        self.path = path
        self.tag = tag
        self.read_only = read_only

    def check(self) -> None:
        """See that the directory is there.

        Raises:
            Failure: it is not.
        """
        if not os.path.isdir(self.path):
            reason = f"A directory sharing device configuration is invalid: {self.path}"
            raise Failure(
                'Error Domain=VZErrorDomain Code=2 "Invalid virtual machine configuration." '
                f"UserInfo={{NSLocalizedFailureReason={reason}}}",
                prefix=True,
            )


def _parse(text: str) -> Share:
    """Read `[name:]path[:options]` as naively as Tart does."""
    parts = text.split(":")
    read_only, tag = False, AUTOMOUNT
    options = parts[-1].split(",")
    if len(parts) > 1 and all(one == "ro" or one.startswith("tag=") for one in options):
        parts.pop()
        read_only = "ro" in options
        tag = next((one[4:] for one in options if one.startswith("tag=")), tag)
    if len(parts) > 2:
        raise Usage("invalid --dir syntax: should be [name:]path[:options]")
    name = parts[0] if len(parts) == 2 else ""
    return Share(name, os.path.expanduser(parts[-1]), tag, read_only=read_only)


def parse(texts: Iterable[str]) -> list[Share]:
    """Read every `--dir`; of two with one name the last wins.

    Raises:
        Usage: several shares of one tag, and not all are named.
    """
    found: dict[tuple[str, str], Share] = {}
    for share in [_parse(text) for text in texts]:
        if any(tag == share.tag and not (name and share.name) for tag, name in found):
            raise Usage(
                "invalid --dir syntax: for multiple directory shares each one of them "
                "should be named"
            )
        found[share.tag, share.name] = share
    return list(found.values())
