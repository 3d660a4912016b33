"""A small runtime that keeps the contract passes the kit: so what fails there is the runtime's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from claw_core.testing import RuntimeContract
from conformance.good import Good
from conformance.plugins import installed


class TestGood(RuntimeContract):
    """Plain processes, which see the host's own tree."""

    runtime = "good"
    place = None

    @pytest.fixture(autouse=True)
    def plugin(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its entry point."""
        installed(tmp_path / "site", monkeypatch, good=Good)

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Mapping[str, Any]:
        """Where it keeps its instances."""
        return {"place": str(tmp_path / "instances")}
