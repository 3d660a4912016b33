"""The entry: what the file of one instance says.

One JSON object per line: first the intent, then hints. The file is preallocated, so its tail reads
as NUL.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import attrs

from claw_core import vfs
from claw_core.intent import Intent

State: TypeAlias = Literal["running", "stopping", "limbo", "quarantined", "held", "gone"]

RESERVED: Final = 4096
"""Bytes that an entry occupies from the start, so that a full disk does not stop a teardown."""
OWNER: Final = "claw.owner"
"""The fact that tells who has opened again what was kept."""
_BLANK: Final = frozenset({b"", b"\0"})


@attrs.frozen(eq=False)
class Entry:
    """What a look at the ledger shows of one instance.

    Attributes:
        directory: where its file is.
        identity: as the file name has it.
        name: name of the instance, None when even the file name is damaged.
        alive: whether someone, its owner or a reaper, holds the lease.
        intent: None when it cannot be read; `error` then says why and what to do.
        error: see `intent`.
        state: `intent`, or what was marked last.
        facts: what was recorded.
        detail: what was marked together with the state.
        age: seconds by the wall clock, for people only.
    """

    directory: Path
    identity: str
    name: str | None
    alive: bool
    intent: Intent | None
    error: str | None
    state: str
    facts: Mapping[str, str]
    detail: Mapping[str, Any]
    age: float

    @property
    def path(self) -> Path:
        """Its file."""
        return self.directory / f"{self.identity}.jsonl"

    @property
    def socket(self) -> Path:
        """Where its owner takes commands of others, while it does."""
        return self.path.with_suffix(".sock")

    @property
    def runtime(self) -> str | None:
        """Name of its runtime, where known."""
        return self.intent.runtime if self.intent else None

    @property
    def owner(self) -> int | None:
        """Process id of its owner, for people only: the one that has opened it again, if any."""
        again = self.facts.get(OWNER, "")
        if again.isdigit():
            return int(again)
        return self.intent.owner if self.intent else None

    @property
    def reapable(self) -> bool:
        """Whether a reaper has something to do: the owner is dead, and nobody keeps it."""
        return not self.alive and self.intent is not None and not held(self.state, self.detail)


def held(state: str, detail: Mapping[str, Any]) -> bool:
    """Whether an instance is being kept on purpose and its time is not over.

    Within one boot `boottime` decides; after a reboot only the wall clock is left to ask.
    """
    if state != "held":
        return False
    if detail.get("boot") == vfs.boot_id():
        return vfs.boottime() < float(detail.get("until", 0.0))
    return vfs.wall_clock() < float(detail.get("wall", 0.0))


@attrs.define(eq=False)
class Content:
    """What a file says, and where its holder goes on writing.

    Attributes:
        intent: None when it cannot be read; `error` then says why.
        error: see `intent`.
        facts: what was recorded.
        state: `intent`, or what was marked last.
        detail: what was marked together with the state.
        end: the position of the next line.
        torn: whether a line without its end lies before that position.
    """

    intent: Intent | None = None
    error: str | None = None
    facts: dict[str, str] = attrs.field(factory=dict)
    state: str = "intent"
    detail: dict[str, Any] = attrs.field(factory=dict)
    end: int = 0
    torn: bool = False


def parse(data: bytes, identity: str, install: str) -> Content:
    """Read what is there; torn or NUL-filled lines after the intent are skipped: they are hints.

    Args:
        data: what `read` gave.
        identity: the one that the intent must have.
        install: the same.
    """
    end = data.rfind(b"\n") + 1
    first, *hints = data[:end].decode(errors="replace").split("\n")
    content = _head(first, identity, install)
    content.end = end
    if data[end : end + 1] not in _BLANK:  # a last line without its end
        content.end, content.torn = len(data.rstrip(b"\0")), True
    for hint in hints[:-1]:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            value = json.loads(hint.strip("\0"))
            if "fact" in value:
                key, fact = value["fact"]
                content.facts[str(key)] = str(fact)
            else:
                content.state, content.detail = str(value["state"]), dict(value.get("detail", ()))
    return content


def _head(line: str, identity: str, install: str) -> Content:
    try:
        intent = Intent.from_line(line)
    except (ValueError, KeyError, TypeError) as error:
        return Content(error=f"its intent cannot be read ({type(error).__name__}: {error})")
    if intent.identity != identity:
        return Content(error="its intent belongs to another file")
    if intent.install != install:
        return Content(error=f"it belongs to the installation {intent.install}")
    return Content(intent)


def read(descriptor: int) -> bytes:
    """Return every line of a file, and some of the NULs behind them.

    Raises:
        OSError: it cannot be read.
    """
    data = vfs.pread(descriptor, RESERVED, 0)
    while len(data) % RESERVED == 0 and data[-1:] not in _BLANK:
        more = vfs.pread(descriptor, RESERVED, len(data))
        if not more:
            break
        data += more
    return data
