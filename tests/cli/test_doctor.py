"""`claw doctor`: what it looks at, and when it says that something cannot work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.support import claw, eventually, hiding, start


def findings(root: Path, *options: str, **env: str) -> tuple[int, dict[str, dict[str, Any]]]:
    done = claw("doctor", "--json", "--root", root, *options, env=env)
    found = json.loads(done.stdout)
    assert all(set(one) == {"subject", "state", "detail", "remedy"} for one in found)
    return done.returncode, {one["subject"]: one for one in found}


def test_a_machine_where_everything_works(tmp_path: Path, state: Path) -> None:
    code, found = findings(tmp_path)
    assert code == 0
    for subject in ("core", "ledger", "warden", "runtime local", "claw.toml", "root", "no group"):
        assert found[subject]["state"] == "ok", subject
    assert str(state) in found["ledger"]["detail"]
    table = claw("doctor", "--root", tmp_path).stdout.decode()
    assert table.startswith("STATE  WHAT")
    assert list((state / "instances").iterdir()) == []


def test_what_is_configured_and_cannot_work_is_exit_1(tmp_path: Path) -> None:
    (tmp_path / "groups/a").mkdir(parents=True)
    (tmp_path / "claw.toml").write_text('[groups.a]\nruntime = "tart"\n')
    env = hiding(tmp_path, "claw-runtime-tart")
    code, found = findings(tmp_path, "--config", str(tmp_path / "claw.toml"), **env)
    assert code == 1
    assert found["group a"]["state"] == "fail"
    assert found["group a"]["remedy"] == "tart: pip install claw-runtime-tart"
    assert found["no group"]["state"] == "ok"


def test_a_wrong_configuration_is_listed_whole(tmp_path: Path) -> None:
    (tmp_path / "claw.toml").write_text("cpus = 'x'\nfoo = 1\n")
    done = claw("doctor", "--root", tmp_path, "--config", tmp_path / "claw.toml")
    assert done.returncode == 1
    assert done.stdout.count(b"fail  ") == 2


def test_a_state_directory_that_cannot_be_used_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    code, found = findings(tmp_path, CLAW_STATE=str(tmp_path / "state"))
    assert code == 1
    assert found["ledger"]["state"] == "fail"
    assert found["ledger"]["remedy"]


def test_why_a_stronger_engine_is_not_there_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "claw.toml").write_text('[runtimes.local]\nengine = "guard"\n')
    code, found = findings(tmp_path, "--config", str(tmp_path / "claw.toml"))
    assert code == 0
    assert "guard at best" in found["runtime local"]["detail"]


def test_wrong_settings_of_a_runtime_are_a_failure(tmp_path: Path) -> None:
    (tmp_path / "claw.toml").write_text('[runtimes.local]\nengine = "steam"\n')
    code, found = findings(tmp_path, "--config", str(tmp_path / "claw.toml"))
    assert code == 1
    assert found["runtime local"]["state"] == "fail"


def test_a_table_of_a_group_without_a_folder_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "claw.toml").write_text('[groups.gone]\nruntime = "local"\n')
    code, found = findings(tmp_path, "--config", str(tmp_path / "claw.toml"))
    assert code == 1
    assert "there is no group 'gone'" in found["group gone"]["detail"]


def test_instances_of_dead_owners_are_counted(tmp_path: Path, state: Path) -> None:
    process = start("run", "-r", "local", "--", "sleep", "600")
    assert eventually(
        lambda: (
            b'"running"'
            in b"".join(
                path.read_bytes() for path in (state / "instances").glob("*") if path.is_file()
            )
        )
    )
    code, found = findings(tmp_path)
    assert code == 0
    assert "1 instances" in found["ledger"]["detail"]
    process.terminate()
    process.communicate(timeout=60)


@pytest.mark.parametrize("name", ["absent"])
def test_an_observer_that_is_required_and_missing(name: str, tmp_path: Path) -> None:
    (tmp_path / "claw.toml").write_text(f'required_observers = ["{name}"]\n')
    config = str(tmp_path / "claw.toml")
    code, found = findings(tmp_path, "--config", config)
    assert code == 1
    assert found[f"observer {name}"]["state"] == "fail"
    done = claw("run", "--root", tmp_path, "--config", config, "--", "touch", "x")
    assert done.returncode == 125
    assert b"the observer absent is required, and is not installed" in done.stderr
