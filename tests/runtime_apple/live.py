"""The real `container` of this Mac, as far as the tests look at a simulated one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import attrs
import pytest

from claw_runtime_apple.listing import HELPER

PREFIX = "claw-"
"""What the names of everything begin with that claw makes; the rest is its user's."""


@attrs.frozen
class LiveContainer:
    """A container: what the service calls its state, and whether launchd has its machine."""

    state: str
    booted: bool


class LiveMac:
    """A Mac that is not simulated: nothing can be made to go wrong, and no call is recorded.

    A test that needs what only a simulated Mac has is skipped when it asks for it.
    """

    def __init__(self) -> None:
        found = shutil.which("container")
        if found is None:
            pytest.fail("--live-apple needs Apple's container on the PATH")
        self.bin = Path(found).parent
        self.environment = dict(os.environ)

    def run(
        self, *argv: str, stdin: bytes | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self.bin / "container", *argv],
            input=stdin or b"",
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def containers(self) -> dict[str, LiveContainer]:
        launchd = subprocess.run(["launchctl", "list"], capture_output=True, text=True, check=True)
        done = self.run("list", "--all", "--format", "json")
        assert done.returncode == 0, done.stderr
        found = {}
        for entry in json.loads(done.stdout):
            name = entry.get("id") or entry["configuration"]["id"]
            status = entry["status"]  # a word, since 1.0 an object
            state = status if isinstance(status, str) else status["state"]
            if name.startswith(PREFIX):
                found[name] = LiveContainer(state, f"{HELPER}{name}\n" in launchd.stdout)
        return found

    def __getattr__(self, name: str) -> NoReturn:
        pytest.skip(f"a real Mac has no {name}")


def refuse(knobs: dict[str, Any]) -> None:
    """Skip a test whose Mac is to be another than this one."""
    if knobs:
        pytest.skip(f"a real Mac cannot be told {', '.join(knobs)}")
