"""Real work: a project of this machine tested in a container, an agent's command line."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cli.support import claw
from runtime_docker import closure
from runtime_docker.engines import TestEngine

PYTHON = Path("/usr/bin/python3")
PROJECT = {
    "shop/__init__.py": "def total(prices):\n    return sum(prices)\n",
    "tests/__init__.py": "",
    "tests/test_shop.py": (
        "import unittest, shop\n"
        "class Total(unittest.TestCase):\n"
        "    def test_sum(self): self.assertEqual(shop.total([1, 2]), 3)\n"
        "    def test_wrong(self): self.assertEqual(shop.total([1]), 2)\n"
    ),
}


@pytest.mark.skipif(not PYTHON.exists(), reason="there is no /usr/bin/python3")
def test_a_python_project_is_tested_in_a_container(engine: TestEngine, tmp_path: Path) -> None:
    real = PYTHON.resolve()
    tree = closure.image({str(one): one for one in (PYTHON, real)}, [Path(f"/usr/lib/{real.name}")])
    engine.import_image(tree, "claw-test-python:1", "ENV PATH=/usr/bin:/bin")
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o755)
    command = ("python3", "-B", "-m", "unittest", "-v")
    done = claw(
        "run", "-r", "docker", "--image", "claw-test-python:1", "--", *command,
        env={"DOCKER_HOST": engine.host}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert b"test_sum (tests.test_shop.Total.test_sum) ... ok" in done.stderr
    assert b"FAILED (failures=1)" in done.stderr
    assert b"AssertionError: 1 != 2" in done.stderr


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_an_agents_command_line_runs_hardened_without_a_network(
    engine: TestEngine, tmp_path: Path
) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    package = "@anthropic-ai/claude-code"
    install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(tmp_path), package]
    subprocess.run(install, check=True, timeout=300)
    found = [p for p in tmp_path.rglob("claude") if p.is_file() and os.access(p, os.X_OK)]
    native = max((p.resolve() for p in found), key=lambda p: p.stat().st_size)
    tree = closure.image({"/bin/claude": native})
    engine.import_image(tree, "claw-test-agent:1", "ENV PATH=/bin")
    done = claw(
        "run", "-r", "docker", "--image", "claw-test-agent:1", "--network", "none", "--",
        "claude", "--version", env={"DOCKER_HOST": engine.host}, cwd=Path("/"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"Claude Code" in done.stdout
