"""The suite is worth what it catches: each seeded bug makes the test fail that is named for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kills.harness import tell
from seeded.bugs import BUGS, Bug

ROOT = Path(__file__).parents[2]
SAMPLE = BUGS[::8]
PACKAGES = ("core", "runtime-docker")


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_is_seeded_in_one_place_and_has_its_test(bug: Bug) -> None:
    assert (ROOT / "packages" / bug.file).read_text().count(bug.old) == 1
    path, _, name = bug.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / "tests" / path).read_text()


@pytest.mark.parametrize("bug", SAMPLE, ids=str)
def test_is_caught(bug: Bug, tmp_path: Path) -> None:
    catch(bug, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_each_is_caught(bug: Bug, tmp_path: Path) -> None:
    catch(bug, tmp_path)
    tell("bug", name=bug.name, test=bug.test)


def catch(bug: Bug, folder: Path) -> None:
    """Run a bug's test on a copy of the packages that has the bug: it must fail, not break."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "packages" / package / "src", folder / package, ignore=ignored)
    file = folder / bug.file.replace("/src/", "/")
    file.write_text(file.read_text().replace(bug.old, bug.new))
    paths = [*(folder / package for package in PACKAGES), ROOT / "tests"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "--timeout=60",
         f"--basetemp={folder}/temporary", f"{ROOT}/tests/{bug.test}"],
        env={**env, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout[-3000:]
    assert " failed" in done.stdout
