"""The guide to writing a runtime, followed from the empty directory on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import claw_core
from claw_core.testing.contract.bench import CHECKS
from docs.test_examples import ROOT, commands

PAGE = (ROOT / "docs/how-to/write-a-runtime.md").read_text()
EXAMPLE = ROOT / "examples/runtime-bubblewrap"
FILE = re.compile(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_from_an_empty_directory_to_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, site, home = tmp_path / "project", tmp_path / "site", tmp_path / "home"
    for directory in (project, home):
        directory.mkdir()
    files = dict(FILE.findall(PAGE))
    assert set(files) == {"pyproject.toml", "claw_runtime_hurry.py"}
    for name, text in files.items():
        (project / name).write_text(text)
    (match,) = CONSOLE.findall(PAGE)
    (install, _), *rest = commands(match)
    assert install == "pip install -q .\n"
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    pip = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
    # Core is there already; a build of the example's own must not fetch another one.
    subprocess.run(
        [*pip, "install", "-q", "--no-deps", "--target", str(site), str(project)],
        check=True,
        timeout=100,
    )
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "claw").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m claw_core "$@"\n')
    (programs / "claw").chmod(0o755)
    source = Path(claw_core.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{source}:{site}")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME")
    for command, expected in rest:
        done = subprocess.run(
            ["sh", "-c", command], cwd=project, capture_output=True, text=True, check=False
        )
        assert done.stdout + done.stderr == expected, command
    assert os.listdir(home / ".cache" / "claw-runtime-hurry") == []


@pytest.mark.parametrize("page", [PAGE, (EXAMPLE / "README.md").read_text()])
def test_every_test_that_is_named_exists(page: str) -> None:
    tests = "".join(path.read_text() for path in (EXAMPLE / "tests").glob("test_*.py"))
    tests += "".join(f"def test_{name}(" for name in CHECKS)  # those of the kit are its own as well
    named = re.findall(r"\btest_\w+\b(?!\.py)", page)
    assert len(named) >= 6
    for name in named:
        assert f"def {name}(" in tests, name
