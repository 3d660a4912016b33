"""The real Tart of this machine, as far as the tests look at a simulated one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest

from claw_runtime_tart.vms import Directory

PREFIX = "claw-"
"""What the names of everything begin with that claw makes; the rest is its user's."""


class LiveHost:
    """A host that is not simulated: nothing can be made to go wrong, and no call is recorded.

    A test that needs what only a simulated host has is skipped when it asks for it.
    """

    leases = Path("/var/db/dhcpd_leases")

    def __init__(self, base: str) -> None:
        self.base_name = base
        self.home = Path(os.environ.get("TART_HOME") or Path.home() / ".tart")
        self.environment = dict(os.environ)

    def tart(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["tart", *arguments], capture_output=True, text=True, check=False)

    def vms(self) -> set[str]:
        names = Directory(self.home).names()
        return {name for name in names if name.startswith(PREFIX) or name == self.base_name}

    def running(self) -> dict[str, int]:
        found = {name: Directory(self.home).holder(name) for name in self.vms()}
        return {name: pid for name, pid in found.items() if pid is not None}

    def processes(self) -> dict[int, str]:
        done = subprocess.run(["ps", "-Aww", "-o", "pid=,args="], capture_output=True, text=True)
        lines = (line.strip().partition(" ") for line in done.stdout.splitlines())
        return {int(pid): args for pid, _, args in lines if f" {PREFIX}" in args and "tart" in args}

    def __getattr__(self, name: str) -> NoReturn:
        pytest.skip(f"a real Tart has no {name}")


def refuse(knobs: dict[str, Any]) -> None:
    """Skip a test whose host is to be another than this machine."""
    if knobs:
        pytest.skip(f"a real Tart cannot be told {', '.join(knobs)}")
