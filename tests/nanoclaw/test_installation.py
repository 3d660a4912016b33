"""What an installation says is read and never changed, and its mistakes are said aloud."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from agents.support import run
from claw_core.errors import ConfigError, ConfigProblems
from claw_core.mounts import MountPolicy, Root
from claw_nanoclaw import NanoClaw, timeouts
from claw_nanoclaw.allowlist import AllowList
from nanoclaw.support import V1, V2, claw_toml, database, installation, outputs, v1, v2


def files(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*")}


def test_version_1_is_read(tmp_path: Path) -> None:
    config = {"timeout": 600_000}
    v1(tmp_path, {"main": None, "finance": config}, {"finance": "an-id"})
    before = files(tmp_path)
    groups = NanoClaw(tmp_path).groups()
    assert files(tmp_path) == before
    assert set(groups) == {"main", "finance"}
    assert groups["main"].is_main
    assert not groups["finance"].is_main
    assert (groups["finance"].name, groups["finance"].session) == ("Finance", "an-id")
    assert groups["finance"].config == config


def test_version_2_is_read_also_while_its_host_writes(tmp_path: Path) -> None:
    v2(tmp_path, "finance", "codex", [{"hostPath": "/x"}])
    before = files(tmp_path)
    (group,) = NanoClaw(tmp_path).groups().values()
    assert files(tmp_path) == before
    assert (group.folder, group.provider, group.identity) == ("finance", "codex", "ag-1")
    assert group.config == {"additionalMounts": [{"hostPath": "/x"}]}
    host = sqlite3.connect(tmp_path / "data/v2.db")
    try:
        host.execute("UPDATE container_configs SET provider = 'gemini'")
        host.commit()  # it is only in the log that lies beside the database
        assert NanoClaw(tmp_path).groups()["finance"].provider == "gemini"
    finally:
        host.close()


def test_before_there_is_a_database_every_folder_is_a_group(tmp_path: Path) -> None:
    (tmp_path / "groups/finance").mkdir(parents=True)
    assert NanoClaw(tmp_path).groups() == {}


def test_another_directory_is_no_installation(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it has no directory groups"):
        NanoClaw(tmp_path)


@pytest.mark.parametrize(
    ("name", "script", "why"),
    [
        ("store/messages.db", "CREATE TABLE other (x)", "no table registered_groups"),
        ("store/messages.db", V1.replace("folder TEXT", "place TEXT"), "no column folder"),
        ("store/messages.db", V1.replace("TABLE sessions", "TABLE other"), "no table sessions"),
        ("data/v2.db", "CREATE TABLE other (x)", "no table agent_groups"),
        ("data/v2.db", V2.replace("container_configs", "other"), "no table container_configs"),
    ],
)
def test_a_database_of_an_unknown_version_is_said_so(
    tmp_path: Path, name: str, script: str, why: str
) -> None:
    (tmp_path / "groups").mkdir()
    database(tmp_path / name, script)
    with pytest.raises(
        ConfigError, match="of a version of NanoClaw that claw does not know"
    ) as error:
        NanoClaw(tmp_path).groups()
    assert why in str(error.value)


def test_a_database_that_is_none_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "groups").mkdir()
    (tmp_path / "store").mkdir()
    path = tmp_path / "store/messages.db"
    path.write_text("this is no database, but long enough to look like one at first sight" * 20)
    with pytest.raises(ConfigError, match="file is not a database"):
        NanoClaw(tmp_path).groups()
    for make in (os.mkfifo, lambda place: os.symlink("/etc/passwd", place)):
        path.unlink()
        make(path)
        with pytest.raises(ConfigError, match="no regular file"):
            NanoClaw(tmp_path).groups()


@pytest.mark.parametrize("text", ["{", "[1]", '"x"'])
def test_a_configuration_that_is_none_is_said_with_its_place(tmp_path: Path, text: str) -> None:
    v1(tmp_path, {"finance": None})
    with sqlite3.connect(tmp_path / "store/messages.db") as connection:
        connection.execute("UPDATE registered_groups SET container_config = ?", (text,))
    with pytest.raises(ConfigError, match=r"store/messages.db: registered_groups.finance: "):
        NanoClaw(tmp_path).groups()


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"timeout": "10m"}, 'timeout: expected milliseconds, got "10m"'),
        ({"additionalMounts": ["~/x"]}, 'additionalMounts[0]: expected a table, got "~/x"'),
        ({"additionalMounts": [{"hostPath": "x"}]}, "additionalMounts[0].hostPath: expected"),
        (
            {"additionalMounts": [{"hostPath": "/x", "mode": "rw"}]},
            "additionalMounts[0].mode: unknown key",
        ),
    ],
)  # fmt: skip
def test_mistakes_in_a_registered_configuration_are_said(
    tmp_path: Path, config: Any, problem: str
) -> None:
    v1(tmp_path, {"finance": config})
    claw_toml(tmp_path)
    with pytest.raises(ConfigProblems) as error:
        run(outputs(installation(tmp_path), "finance", "x"))
    assert f"store/messages.db: registered_groups.finance: {problem}" in str(error.value)


GOOD = {"allowedRoots": [], "blockedPatterns": [], "nonMainReadOnly": True}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], "expected an object with allowedRoots, blockedPatterns, nonMainReadOnly"),
        ({"allowedRoots": []}, "blockedPatterns: expected a list; an empty one is fine"),
        ({**GOOD, "allowedRoots": ["~/x"]}, "allowedRoots[0]: expected an object such as {"),
        (
            {**GOOD, "allowedRoots": [{"path": "~/x", "mode": "rw"}]},
            "allowedRoots[0].mode: unknown key; known are path, allowReadWrite",
        ),
        ({**GOOD, "allowedRoots": [{"path": "x"}]}, "allowedRoots[0].path: expected an absolute"),
        (
            {**GOOD, "allowedRoots": [{"path": "/etc/passwd"}]},
            "allowedRoots[0].path: /etc/passwd is a file",
        ),
        ({**GOOD, "nonMainReadOnly": "yes"}, "nonMainReadOnly: expected true or false"),
        ({**GOOD, "blockedPatterns": [""]}, "blockedPatterns[0]: expected a word"),
        ({**GOOD, "blocked": []}, "blocked: unknown key"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_mistakes_in_the_mount_list_are_said(tmp_path: Path, value: Any, problem: str) -> None:
    path = tmp_path / "mount-allowlist.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ConfigProblems) as error:
        AllowList.load(path)
    assert f"{path}: {problem}" in str(error.value)


def test_the_mount_list_allows_and_blocks_as_nanoclaw_does(tmp_path: Path) -> None:
    path = tmp_path / "mount-allowlist.json"
    root = {"path": str(tmp_path), "allowReadWrite": True, "description": "mine"}
    path.write_text(json.dumps({**GOOD, "allowedRoots": [root], "blockedPatterns": ["secret"]}))
    allowed = AllowList.load(path)
    own = MountPolicy(roots=(Root(Path("/own")),))
    main, other = (allowed.policy(own, main=main) for main in (True, False))
    assert main.roots == (Root(Path("/own")), Root(tmp_path, writable=True))
    assert other.roots == (Root(Path("/own")), Root(tmp_path, writable=False))
    assert "*secret*" in main.blocked
    absent = AllowList.load(tmp_path / "absent.json")
    assert not absent.exists
    assert absent.policy(own, main=True) == own


def test_the_time_limit_is_nanoclaws(tmp_path: Path) -> None:
    assert timeouts.limit({}, None) == 1830
    assert timeouts.limit({}, 600) == 1830
    assert timeouts.limit({}, 3600) == 3600
    assert timeouts.limit({"IDLE_TIMEOUT": "1000", "CONTAINER_TIMEOUT": "90000"}, None) == 90
    assert timeouts.limit({"IDLE_TIMEOUT": "1000"}, 10) == 31
    with pytest.raises(ConfigProblems, match="IDLE_TIMEOUT: expected milliseconds, got '30m'"):
        timeouts.limit({"IDLE_TIMEOUT": "30m"}, None)
