"""Groups of an installation run: what they see, what they give, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from agents.support import run
from claw_core.errors import ConfigError, ConfigProblems
from claw_nanoclaw import ContainerInput, ContainerOutput
from nanoclaw.support import claw_toml, installation, outputs, v1, v2

UNKNOWN = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    v1(tmp_path, {"main": None, "finance": None})
    claw_toml(tmp_path)
    return tmp_path


def allow(home: Path, *roots: dict[str, Any], **others: Any) -> None:
    """Write NanoClaw's list of mounts."""
    path = home / ".config/nanoclaw/mount-allowlist.json"
    path.parent.mkdir(parents=True)
    value = {"allowedRoots": list(roots), "blockedPatterns": [], "nonMainReadOnly": True, **others}
    path.write_text(json.dumps(value))


def answers(root: Path, folder: str, *prompts: str, **options: Any) -> list[str | None]:
    """What a group's agent answers to each prompt, in an instance of its own each."""

    async def work() -> list[str | None]:
        nano = installation(root)
        found = [await outputs(nano, folder, prompt, **options) for prompt in prompts]
        return [output.result if output.error is None else output.error for (output,) in found]

    return run(work())


def test_a_group_sees_its_folder_the_common_one_and_its_ipc(root: Path) -> None:
    (root / "groups/finance/note").touch()
    seen = answers(root, "finance", "list /workspace", "list .", "write note", "write ../global/x")
    assert seen[:3] == [". .. global group ipc ", ". .. note ", "written"]
    assert (root / "groups/finance/note").read_text() == "written\n"
    assert not (root / "groups/global/x").exists()
    assert answers(root, "finance", "write ../ipc/x") == ["written"]
    assert (root / "data/ipc/finance/x").exists()


def test_the_main_group_sees_the_installation_without_its_secrets(root: Path) -> None:
    seen = answers(
        *(root, "main", "list /workspace", "list ../project", "write ../project/x"),
        *("write ../project/store/x", "write ../global/x"),
    )
    assert seen[0] == ". .. global group ipc project "
    assert seen[1] == ". .. .env claw.toml data groups store "
    assert not (root / "x").exists()
    assert seen[3:] == ["written", "written"]
    assert (root / "store/x").exists()
    assert (root / "groups/global/x").exists()
    assert "canary" in (root / ".env").read_text()
    assert answers(root, "main", "read ../project/.env") == [""]


def test_the_callers_word_about_being_the_main_group_counts(root: Path) -> None:
    given = ContainerInput(prompt="list /workspace", is_main=True)
    (output,) = run(outputs(installation(root), "finance", "", given=given))
    assert "project" in str(output.result)


def test_a_session_goes_on_and_a_lost_one_is_said_as_the_host_recognises_it(root: Path) -> None:
    async def work() -> list[ContainerOutput]:
        nano = installation(root)
        found = await outputs(nano, "finance", "count")
        for session in (found[0].session_id, UNKNOWN):
            given = ContainerInput(prompt="count", session_id=session)
            found += await outputs(nano, "finance", "", given=given)
        return found

    first, second, lost = run(work())
    assert (first.status, first.result) == ("success", "prompt 1 of this session")
    assert (second.result, second.session_id) == ("prompt 2 of this session", first.session_id)
    assert (lost.status, lost.result, lost.session_id) == ("error", None, None)
    assert f"session {UNKNOWN} not found" in str(lost.error)


def test_sessions_of_before_claw_go_on(root: Path) -> None:
    kept = root / "data/sessions/finance/.claude/projects"
    kept.mkdir(parents=True)
    (kept / f"{UNKNOWN}.jsonl").write_text("line\n")
    given = ContainerInput(prompt="count", session_id=UNKNOWN)
    (output,) = run(outputs(installation(root), "finance", "", given=given))
    assert output.result == "prompt 2 of this session"
    assert (kept / f"{UNKNOWN}.jsonl").read_text() == "line\n"


def test_secrets_come_from_env_and_from_old_hosts(root: Path) -> None:
    (of_env,) = answers(root, "finance", "variable ANTHROPIC_API_KEY")
    assert of_env == "canary-of-env"
    secrets = {"ANTHROPIC_API_KEY": "of-the-host", "OTHER": "x"}
    for name, value in secrets.items():
        given = ContainerInput(prompt=f"variable {name}", secrets=secrets)
        (output,) = run(outputs(installation(root), "finance", "", given=given))
        assert output.result == value
    assert answers(root, "finance", "variable TZ") == ["Europe/Lisbon"]


def test_a_task_whose_script_wants_no_agent_asks_none(root: Path, state: Path) -> None:
    def given(script: str | None) -> ContainerInput:
        return ContainerInput(prompt="all", is_scheduled_task=True, script=script)

    async def work() -> list[ContainerOutput]:
        nano = installation(root)
        scripts = (
            None, 'echo \'{"wakeAgent": false}\'', "exit 1", "echo no JSON",
            'echo noise; echo \'{"wakeAgent": true, "data": [7]}\'',
        )  # fmt: skip
        found = [await outputs(nano, "finance", "", given=given(script)) for script in scripts]
        return [output for (output,) in found]

    plain, *asleep, awake = run(work())
    assert re.fullmatch(r"\[SCHEDULED TASK - .*\]\|\|all", str(plain.result))
    assert asleep == [ContainerOutput("success")] * 3
    assert re.search(r"\|Output of its script:\|\[\|  7\|\]\|\|all$", str(awake.result))
    assert (state / "runs.jsonl").read_text().count('"exit":null') == 3


def test_a_mount_below_an_allowed_root_is_shown_read_only_to_others(
    root: Path, home: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    (shared / "site").mkdir(parents=True)
    (shared / "site/page").touch()
    allow(home, {"path": str(shared), "allowReadWrite": True})
    mounts = [{"hostPath": str(shared / "site"), "containerPath": "web", "readonly": False}]
    config: dict[str, Any] = {"additionalMounts": mounts}
    other = v1(tmp_path / "other", {"main": config, "finance": {**config, "env": {"A": "b"}}})
    claw_toml(other)
    told: list[str] = []
    extra = "/workspace/extra/web"
    seen = answers(other, "finance", f"list {extra}", f"write {extra}/new", told=told)
    assert seen[0] == ". .. page "
    assert not (shared / "site/new").exists()
    where = "store/messages.db: registered_groups.finance"
    assert any(f"{where}: additionalMounts[0]: read-only, although" in text for text in told)
    assert f"{where}: env is not taken from there; set it in claw.toml" in told
    assert answers(other, "main", f"write {extra}/new") == ["written"]
    assert (shared / "site/new").exists()


@pytest.mark.parametrize("listed", [True, False])
def test_a_mount_outside_of_the_list_is_refused_before_anything_starts(
    home: Path, tmp_path: Path, state: Path, listed: bool
) -> None:
    if listed:
        allow(home, {"path": str(tmp_path / "allowed")})
    v1(tmp_path, {"finance": {"additionalMounts": [{"hostPath": "/etc"}]}})
    claw_toml(tmp_path)
    with pytest.raises(ConfigProblems, match="'/etc' is outside of the allowed roots") as error:
        answers(tmp_path, "finance", "count")
    said = str(error.value)
    assert "store/messages.db: registered_groups.finance: additionalMounts[0]: " in said
    assert "mount-allowlist.json" in said
    assert ("does not exist, so it allows nothing" in said) == (not listed)
    assert not (state / "runs.jsonl").exists()


def test_a_blocked_word_is_blocked_wherever_it_stands(home: Path, tmp_path: Path) -> None:
    place = tmp_path / "my-payroll-2026"
    place.mkdir()
    allow(home, {"path": str(tmp_path)}, blockedPatterns=["payroll"])
    v1(tmp_path, {"finance": {"additionalMounts": [{"hostPath": str(place)}]}})
    claw_toml(tmp_path)
    with pytest.raises(ConfigProblems, match="'my-payroll-2026' is blocked"):
        answers(tmp_path, "finance", "count")


def test_a_group_of_version_2_is_asked_by_its_provider(tmp_path: Path) -> None:
    v2(tmp_path, "finance", "nobody")
    claw_toml(tmp_path)
    with pytest.raises(ConfigError, match="there is no agent 'nobody'"):
        answers(tmp_path, "finance", "count")
    claw_toml(tmp_path, "[groups.finance]", "agent = 'claude'")
    assert answers(tmp_path, "finance", "list /workspace") == [". .. group "]


def test_a_group_that_is_none_is_refused_with_those_there_are(root: Path) -> None:
    with pytest.raises(ConfigProblems, match="groups there: finance, main"):
        answers(root, "nobody", "count")
    with pytest.raises(ConfigProblems, match="global is no group"):
        answers(root, "global", "count")


def test_who_stops_listening_and_closes_leaves_nothing(root: Path, state: Path) -> None:
    async def work() -> None:
        nano = installation(root)
        given = ContainerInput(prompt="count")
        found = nano.run_group("finance", given, follow=True)
        async with contextlib.aclosing(found):
            assert (await anext(found)).result == "prompt 1 of this session"

    run(work())
    (line,) = (state / "runs.jsonl").read_text().splitlines()
    assert json.loads(line)["teardown"] == "gone"
    assert list((state / "instances").iterdir()) == []


def test_silence_after_an_answer_is_an_end_and_before_it_an_error(root: Path) -> None:
    async def work(prompt: str) -> list[ContainerOutput]:
        return await outputs(installation(root), "finance", prompt, follow=True, timeout=1.0)

    async def both() -> list[list[ContainerOutput]]:
        return [await work("count"), await work("sleep /tmp/at-it")]

    idle, silent = run(both())
    assert [output.result for output in idle] == ["prompt 1 of this session", None]
    (failed,) = silent
    assert failed.status == "error"
    assert failed.session_id is not None
    assert "stopped after its timeout of 1 s" in str(failed.error)


def test_groups_run_side_by_side(root: Path) -> None:
    async def work() -> list[list[ContainerOutput]]:
        nano = installation(root)
        return list(
            await asyncio.gather(*(outputs(nano, name, "count") for name in ("main", "finance")))
        )

    for (output,) in run(work()):
        assert output.result == "prompt 1 of this session"
