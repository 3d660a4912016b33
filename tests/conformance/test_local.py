"""The embedded runtime keeps the contract, on both of its engines."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from claw_core.testing import RuntimeContract


class TestNamespaces(RuntimeContract):
    """Sandboxes of their own namespaces."""

    runtime = "local"
    preload = ("claw_core.local.runtime",)

    @pytest.fixture
    def settings(self) -> Mapping[str, Any]:
        """The engine."""
        return {"engine": "namespaces"}


class TestGuard(RuntimeContract):
    """Sandboxes on the shared view of the system: what is mounted has its own path there."""

    runtime = "local"
    preload = ("claw_core.local.runtime",)
    place = None

    @pytest.fixture
    def settings(self) -> Mapping[str, Any]:
        """The engine."""
        return {"engine": "guard"}

    @pytest.fixture
    def directory(self) -> Iterator[Path]:
        """Where the sandbox's user may pass."""
        place = Path(tempfile.mkdtemp(prefix="claw-guard-", dir="/var/tmp"))
        place.chmod(0o711)
        yield place
        shutil.rmtree(place)
