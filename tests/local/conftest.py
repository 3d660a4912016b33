"""Callers and engines for the tests of the sandbox."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import claw_core
from local.callers import Caller


@pytest.fixture(scope="session")
def installed() -> Iterator[Path]:
    """What claw needs, where everybody can read it: the developer's HOME is private."""
    place = Path(tempfile.mkdtemp(prefix="claw-installed-", dir="/var/tmp"))
    site = Path(sysconfig.get_path("purelib"))
    sources = [Path(claw_core.__file__).parent]
    sources += [site / name for name in ("attr", "attrs", "pluggy", "click")]
    for source in sources:
        shutil.copytree(source, place / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    for folder, _, files in os.walk(place):
        Path(folder).chmod(0o755)
        for name in files:
            (Path(folder) / name).chmod(0o644)
    yield place
    shutil.rmtree(place)


def made(uid: int, installed: Path) -> Iterator[Caller]:
    """A caller with directories below /var/tmp, which everybody may pass through."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    base = Path(tempfile.mkdtemp(prefix="claw-caller-", dir="/var/tmp"))
    base.chmod(0o711)
    for name, mode in (("home", 0o700), ("state", 0o700), ("project", 0o777)):
        (base / name).mkdir()
        (base / name).chmod(mode)
        os.chown(base / name, uid, uid)
    os.chown(base, uid, uid)
    yield Caller(uid, base, sys.executable if uid == 0 else "/usr/bin/python3", installed)
    shutil.rmtree(base)


@pytest.fixture(params=["root", "user"])
def caller(request: pytest.FixtureRequest, installed: Path) -> Iterator[Caller]:
    """Root, then an ordinary user."""
    yield from made(0 if request.param == "root" else 1000, installed)


@pytest.fixture
def user(installed: Path) -> Iterator[Caller]:
    """An ordinary user."""
    yield from made(1000, installed)


@pytest.fixture
def root(installed: Path) -> Iterator[Caller]:
    """Root."""
    yield from made(0, installed)


@pytest.fixture(params=["namespaces", "guard"])
def engine(request: pytest.FixtureRequest) -> str:
    """Both engines."""
    return str(request.param)
