"""The kit by itself: what it costs those who do not use it, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from claw_core.testing.contract import kills, verdict
from claw_core.testing.contract.bench import Bench
from claw_core.testing.contract.case import Case
from cli.support import eventually, marked
from conformance.bad import LeakingOnCancel
from conformance.good import Good
from conformance.plugins import installed

WITHOUT_PYTEST = """
import sys
sys.modules["pytest"] = None
import claw_core.testing
import claw_core.testing.contract.actor
try:
    claw_core.testing.RuntimeContract
except ImportError:
    print("as it should be")
"""

ORPHAN = """
import sys
from pathlib import Path
from claw_core.testing.contract.bench import Bench
from claw_core.testing.contract.case import Case
from conformance import test_kit
directory = Path(sys.argv[1])
(directory / "state").mkdir(mode=0o700)
with Bench.open(Case("local", directory)) as bench:
    child = bench.start(test_kit.linger)
    assert child.until("lingering", 60)
    print(child.pid, flush=True)
    input()
"""


async def linger(stage: object) -> None:
    """A job that does not end."""
    import asyncio

    stage.say("lingering")  # type: ignore[attr-defined] # a Stage
    await asyncio.Event().wait()


async def fail(stage: object) -> None:
    """A job that fails between two hooks."""
    for moment in ("enter prepare", "leave prepare"):
        stage.say(moment)  # type: ignore[attr-defined] # a Stage
    raise KeyError("one of the kit")


def test_only_the_class_of_tests_needs_pytest() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PYTEST], capture_output=True, text=True, check=True
    )
    assert done.stdout == "as it should be\n"


def test_its_processes_end_with_it(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", ORPHAN, str(tmp_path)]
    path = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        assert eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_the_payload_of_a_runtime_that_forgets_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path / "site", monkeypatch, bad=LeakingOnCancel)
    case = Case("bad", tmp_path, {"place": str(tmp_path / "instances")}, place=None)
    with Bench.open(case) as bench:
        assert bench.examine("a_cancelled_command_is_gone") is not None
    assert eventually(lambda: not marked(f"{tmp_path}/heart/"))


def test_what_fails_outside_of_every_hook_is_blamed_on_none(tmp_path: Path) -> None:
    case = Case("local", tmp_path)
    case.state.mkdir(mode=0o700)
    with Bench.open(case) as bench:
        child = bench.start(fail)
        assert child.end(60)
    assert child.found is not None
    assert (child.found.hook, child.found.promise) == ("runtime", verdict.KIT)


def test_a_process_that_is_killed_at_a_moment_has_come_that_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path / "site", monkeypatch, good=Good)
    case = Case("good", tmp_path, {"place": str(tmp_path / "instances")}, place=None)
    case.state.mkdir(mode=0o700)
    (tmp_path / "heart").mkdir()
    with Bench.open(case) as bench:
        child = bench.start(kills.own, stop="leave prepare", heart="heart")
        assert child.end(60)
        assert child.code == -signal.SIGKILL
        assert child.events[-2] == {"at": "leave prepare"}
        (name,) = child.said("name")
        assert bench.ask(kills.look).said("listed") == [name]
        bench.ask(kills.reap, seconds=30)
        assert bench.ask(kills.look).said("listed") == []
