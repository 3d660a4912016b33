"""What is kept of machines: snapshots, and machines themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from claw_core.errors import RuntimeFault
from claw_runtime_tart.runtime import TartRuntime
from cli.support import claw, entries
from runtime_tart import worlds
from runtime_tart.support import run
from simulators.tart.world import Simulator

SECRET = "hunter2-hunter2"


def shown(*arguments: str) -> Any:
    done = claw(*arguments, "--json", env={"SECRET": SECRET})
    assert SECRET.encode() not in done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_snapshot_from_the_run_to_its_deletion(world: Simulator, state: Path) -> None:
    program = 'echo "$SECRET" > ~/leaked; echo work > ~/work; exit 3'
    done = claw(
        *("run", "--json", "-r", "tart", "--snapshot", "on-failure", "--secret", "SECRET"),
        *("--", "sh", "-c", program),
        env={"SECRET": SECRET},
    )
    record = json.loads(done.stdout)
    assert (done.returncode, record["teardown"]) == (3, "gone"), done.stderr
    name = record["snapshot"]
    assert name.startswith("claw-snapshot-run-")
    assert world.vms() == {worlds.BASE, name}
    (row,) = shown("snapshots", "list")
    assert (row["name"], row["found_in"]) == (name, ["/Users/admin/leaked"])
    looked = claw("run", "-q", "-r", "tart", "--image", name, "--", "sh", "-c", "cat ~/work")
    assert looked.stdout == b"work\n", looked.stderr
    shown("snapshots", "delete", name)
    assert world.vms() == {worlds.BASE}
    assert (world.processes(), entries(state)) == ({}, [])


def test_what_is_no_snapshot_is_not_deleted(world: Simulator) -> None:
    runtime = TartRuntime(worlds.settings(world))
    for name in (worlds.BASE, "claw-snapshot-a", "claw-0ddba11e-000000000000"):
        with pytest.raises(RuntimeFault, match="is no snapshot of claw's"):
            run(runtime.delete_snapshot(name))


def test_a_machine_that_is_kept_is_entered_and_deleted(world: Simulator, state: Path) -> None:
    kept = ("--keep", "always", "--keep-for", "1h")
    done = claw("run", "--json", "-r", "tart", *kept, "--", "sh", "-c", "echo work > ~/work")
    record = json.loads(done.stdout)
    name = record["instance"]
    assert record["teardown"] == "held", done.stderr
    assert world.vms() == {worlds.BASE, name}
    assert (world.running(), world.processes()) == ({}, {})
    assert claw("reap").returncode == 0
    assert name in world.vms()
    assert shown("ps")[0]["state"] == "held"
    assert claw("reap", name).returncode == 0
    assert world.vms() == {worlds.BASE}
    assert entries(state) == []
