"""A real project goes in, runs its own tests, and its report comes out."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from cli.support import claw

ROOT = Path(__file__).parents[2]


def test_a_projects_test_suite_runs_in_an_instance(tmp_path: Path) -> None:
    done = claw(
        *("run", "-r", "local", "--network", "none", "--timeout", "2m"),
        *("--upload", f"{ROOT / 'packages'}:/tmp/project/packages"),
        *("--upload", f"{ROOT / 'tests'}:/tmp/project/tests"),
        *("--upload", f"{ROOT / 'pyproject.toml'}:/tmp/project/pyproject.toml"),
        *("--download", f"/tmp/project/report.xml:{tmp_path / 'report.xml'}"),
        *("-w", "/tmp/project", "-e", "PYTHONPATH=packages/core/src"),
        *("--", "python3", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("--junitxml=report.xml", "tests/core/test_units.py", "tests/core/test_errors.py"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert b"passed" in done.stdout
    suite = ElementTree.parse(tmp_path / "report.xml").getroot().find("testsuite")
    assert suite is not None
    assert int(suite.attrib["tests"]) > 20
    assert (suite.attrib["failures"], suite.attrib["errors"]) == ("0", "0")
