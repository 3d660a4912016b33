"""Installs core and the runtime into a fresh environment, as a stranger would, once per run."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

DISTRIBUTION = Path(__file__).parents[1]
CORE = DISTRIBUTION.parents[1] / "packages" / "core"


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the programs of a fresh environment; workers of one run share it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    target = shared / "bubblewrap-environment"
    with (shared / "bubblewrap-environment.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "installed").exists():
            install(target)
            (target / "installed").touch()
    return target / "bin"


def install(target: Path) -> None:
    programs = Path(sys.executable).parent
    uv = shutil.which("uv", path=f"{programs}:{os.environ['PATH']}")
    venv.create(target, with_pip=uv is None, clear=True)
    python = str(target / "bin" / "python")
    tool = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    subprocess.run([*tool, "-q", str(CORE), str(DISTRIBUTION)], check=True, timeout=100)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A ledger and a place for instances of its own for every test, empty at its end."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("CLAW_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    yield tmp_path / "state"
    left = tmp_path / "cache" / "claw-runtime-bubblewrap"
    assert not left.exists() or os.listdir(left) == []
