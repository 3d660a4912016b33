"""Runtimes of these tests, found as strangers' are: by entry points."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cli.support import install


def installed(directory: Path, monkeypatch: pytest.MonkeyPatch, **runtimes: type) -> None:
    """Let entry points of classes be found in this process and in those that the kit makes."""
    lines = [f"{name} = {one.__module__}:{one.__name__}" for name, one in runtimes.items()]
    directory.mkdir(exist_ok=True)
    install(directory, "claw-runtimes-of-tests", "\n".join(lines), "", "claw.runtimes")
    monkeypatch.setattr(sys, "path", [*sys.path, str(directory)])
