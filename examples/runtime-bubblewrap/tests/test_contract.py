"""The runtime keeps the contract: the kit of core, held against what pip installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from claw_core.testing import RuntimeContract


@pytest.fixture(autouse=True)
def installed(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the entry point of the fresh environment be found from here."""
    (site,) = environment.parent.glob("lib/python*/site-packages")
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])


class TestBubblewrap(RuntimeContract):
    """Sandboxes made by `bwrap`."""

    runtime = "bubblewrap"
