"""What the kit is told about a runtime, as a value that travels to the processes of a check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs


@attrs.frozen
class Case:
    """A runtime, and what it needs to be tried.

    Attributes:
        runtime: name of its entry point.
        directory: a directory of the check's own: ledger, mounts, files.
        settings: its table of the configuration.
        image: what instances start from.
        mounts: whether it can show directories of the host.
        place: the directory inside below which the kit mounts; None: at their own paths.
        disk: a directory inside that a snapshot keeps; None: the home of commands.
        hook_timeout: seconds that one call of a hook has.
        check_timeout: seconds that one check has.
        late: seconds for which nothing may come to light after a teardown.
        seed: for whatever is random in a check.
    """

    runtime: str
    directory: Path
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    image: str | None = None
    mounts: bool = True
    place: str | None = "/mnt/kit"
    disk: str | None = None
    hook_timeout: float = 30.0
    check_timeout: float = 90.0
    late: float = 0.5
    seed: int = 0

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.directory / "state"

    def inside(self, path: Path) -> str:
        """Where a directory of the host is mounted."""
        return str(path) if self.place is None else f"{self.place}/{path.name}"

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {**attrs.asdict(self), "directory": str(self.directory)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Case:
        """The case that `to_json` wrote."""
        return cls(**{**value, "directory": Path(value["directory"])})
