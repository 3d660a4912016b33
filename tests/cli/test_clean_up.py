"""`claw ps`, `claw reap` and `claw runtimes`, also on a ledger that has seen bad days."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from cli.support import claw, entries, hiding, start


def leave_an_entry(state: Path, identity: str = "ab" * 16, runtime: str = "local") -> Path:
    """Write an intent whose owner is dead, as a crash leaves it."""
    program = (
        "import os, pathlib\n"
        "from claw_core.ledger import Intent, Ledger\n"
        f"ledger = Ledger.open(pathlib.Path({str(state)!r}))\n"
        f"ledger.acquire(Intent.new(ledger.install, {runtime!r}, identity={identity!r}))\n"
        "os._exit(0)\n"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", program]) == 0
    return state / "instances" / f"{identity}.jsonl"


def test_an_empty_ledger_is_said_to_be_empty() -> None:
    assert claw("ps").stdout == b"no instances\n"
    assert json.loads(claw("ps", "--json").stdout) == []
    assert claw("reap").stdout == b"nothing to reap\n"
    assert json.loads(claw("reap", "--json").stdout) == []


def test_a_living_instance_is_shown_and_never_reaped(state: Path) -> None:
    with start("run", "--", "sh", "-c", "echo ready; sleep 60") as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
        (row,) = json.loads(claw("ps", "--json").stdout)
        assert (row["runtime"], row["state"], row["alive"]) == ("local", "running", True)
        assert row["owner"] == one.pid
        (planned,) = json.loads(claw("reap", "--dry-run", "--json").stdout)
        assert planned["result"] == "keep"
        assert claw("reap").returncode == 0
        assert one.poll() is None
        one.send_signal(signal.SIGTERM)
        one.communicate(timeout=20)
    assert entries(state) == []


def test_what_would_be_deleted_can_be_seen_before(state: Path) -> None:
    leave_an_entry(state)
    before = entries(state)
    (planned,) = json.loads(claw("reap", "--dry-run", "--json").stdout)
    assert planned["result"] == "delete"
    assert "dead" in planned["error"]
    assert entries(state) == before
    (done,) = json.loads(claw("reap", "--json").stdout)
    assert done["result"] == "gone"
    assert entries(state) == []


def test_a_torn_line_is_no_obstacle(state: Path) -> None:
    path = leave_an_entry(state)
    data = path.read_bytes().rstrip(b"\0")
    path.write_bytes(data + b'{"state":"runn')
    assert claw("reap").returncode == 0
    assert entries(state) == []


def test_a_damaged_entry_is_named_and_kept_and_disturbs_nothing(state: Path) -> None:
    path = leave_an_entry(state)
    path.write_bytes(b"\xff\xfe nonsense")
    done = claw("reap")
    assert done.returncode == 125
    assert str(path).encode() in done.stdout
    assert path.exists()
    assert str(path).encode() in claw("ps").stdout
    assert claw("run", "--", "true").returncode == 0
    assert path.exists()


def test_an_entry_of_a_runtime_that_is_not_installed_says_what_to_install(
    state: Path, tmp_path: Path
) -> None:
    leave_an_entry(state, runtime="tart")
    done = claw("reap", "--deadline", "1s", env=hiding(tmp_path, "claw-runtime-tart"))
    assert done.returncode == 125
    assert b"claw-runtime-tart" in done.stdout
    assert len(entries(state)) == 1
    assert b"quarantined" in claw("ps").stdout


def test_a_ledger_that_is_no_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for command in (["ps"], ["reap"], ["run", "--", "true"]):
        done = claw(*command, env={"CLAW_STATE": str(tmp_path / "file")})
        assert done.returncode == 125
        assert str(tmp_path / "file").encode() in done.stderr
        assert b"Traceback" not in done.stderr


def test_a_ledger_that_others_can_change_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    done = claw("run", "--", "true", env={"CLAW_STATE": str(tmp_path)})
    assert done.returncode == 125
    assert b"chmod 700" in done.stderr


def test_runtimes_says_what_is_here_and_why_not_more() -> None:
    (row,) = [
        row for row in json.loads(claw("runtimes", "--json").stdout) if row["name"] == "local"
    ]
    assert row["available"]
    assert row["isolation"] in {"sandbox", "guard"}
    assert row["from"].startswith("claw-core ")
    assert b"local" in claw("runtimes").stdout


def test_a_broken_plugin_is_a_row_and_disturbs_nothing(tmp_path: Path) -> None:
    info = tmp_path / "claw_broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: claw-broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[claw.runtimes]\nbroken = claw_broken_module:Runtime\n")
    (tmp_path / "claw_broken_module.py").write_text("raise RuntimeError('odd import')\n")
    env = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    rows = {row["name"]: row for row in json.loads(claw("runtimes", "--json", env=env).stdout)}
    assert not rows["broken"]["available"]
    assert "odd import" in rows["broken"]["reason"]
    assert rows["broken"]["from"] == "claw-broken 1.0"
    assert rows["local"]["available"]
    done = claw("run", "-r", "broken", "--", "true", env=env)
    assert done.returncode == 125
    assert b"claw-broken" in done.stderr
    assert claw("run", "--", "true", env=env).returncode == 0


@pytest.mark.parametrize("name", ["run", "ps", "reap", "runtimes"])
def test_every_command_explains_itself(name: str) -> None:
    done = claw(name, "--help")
    assert done.returncode == 0
    assert b"Usage:" in done.stdout


def test_an_instance_without_an_entry_is_shown_and_only_adopted_on_demand(state: Path) -> None:
    with start("run", "--", "sh", "-c", "echo ready; sleep 60") as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
        (name,) = entries(state)[:1]
        (state / "instances" / name).unlink()
        (planned,) = json.loads(claw("reap", "--dry-run", "--json").stdout)
        assert planned["result"] == "adopt"
        assert claw("reap").stdout == b"nothing to reap\n"
        assert one.poll() is None
        (done,) = json.loads(claw("reap", "--adopt", "--json").stdout)
        assert done["result"] == "gone"
        assert one.wait(20) == 125
        one.communicate()
    assert claw("reap", "--dry-run").stdout == b"nothing to reap\n"


def test_ps_says_why_something_is_quarantined(state: Path, tmp_path: Path) -> None:
    leave_an_entry(state, runtime="tart")
    claw("reap", "--deadline", "1s", env=hiding(tmp_path, "claw-runtime-tart"))
    (row,) = json.loads(claw("ps", "--json").stdout)
    assert row["state"] == "quarantined"
    assert "claw-runtime-tart" in row["remark"]
