"""One line per finished run in `runs.jsonl`: what happened, never what was said."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs

from claw_core import vfs
from claw_core.model import Exit
from claw_core.routing import Route


@attrs.define
class Record:
    """What is remembered of one run.

    Attributes:
        instance: name of the instance.
        group: the group it ran for.
        route: which runtime and what it gave.
        started: wall-clock time in seconds since 1970, for people only.
        seconds: time per phase, in seconds; a phase that ran several times is summed up.
        exit: how the last command ended, or None when none did.
        teardown: `gone`, `limbo`, `quarantined`, `busy` when its deadline came before the first
            try, `held` where the instance is kept, or `pending` while it lives.
        error: type and phase of what went wrong on claw's side.
        snapshot: name of the last snapshot for inspection.
        kept_until: wall-clock time at which an instance that is kept is no longer.
    """

    instance: str
    group: str | None
    route: Route
    started: float
    seconds: dict[str, float] = attrs.field(factory=dict)
    exit: Exit | None = None
    teardown: str = "pending"
    error: str | None = None
    snapshot: str | None = None
    kept_until: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as it is written to `runs.jsonl` and shown by `--json`."""
        assessment = self.route.assessment
        return {
            "instance": self.instance,
            "group": self.group,
            "runtime": self.route.runtime,
            "why": self.route.why,
            "isolation": assessment.isolation.label,
            "axes": assessment.axes.to_json(),
            "network": assessment.network,
            "notes": list(assessment.notes),
            "started": round(self.started, 3),
            "seconds": {phase: round(spent, 6) for phase, spent in self.seconds.items()},
            "exit": self.exit.code if self.exit else None,
            "signal": self.exit.signal if self.exit else None,
            "teardown": self.teardown,
            "error": self.error,
            "snapshot": self.snapshot,
            "kept_until": self.kept_until and round(self.kept_until, 3),
        }


def what(error: BaseException) -> str:
    """Type and phase of an error: what a record tells of it."""
    phase = getattr(error, "phase", None)
    return type(error).__name__ + (f" in {phase}" if phase else "")


def append(state: Path, record: Record) -> None:
    """Add a line; one write to a file opened for appending, so that lines never mix.

    Raises:
        OSError: the line could not be written.
    """
    line = json.dumps(record.to_json(), separators=(",", ":")).encode() + b"\n"
    descriptor = vfs.open_file(
        state / "runs.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    try:
        vfs.write(descriptor, line)
    finally:
        vfs.close(descriptor)
