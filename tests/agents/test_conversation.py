"""Conversations with an agent: answers, sessions, what is kept, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from agents.support import ask, configure, conversation, run
from claw_core import agentstate, events
from claw_core.agentstate import AgentState
from claw_core.errors import CapacityExhausted, ConfigError, DeadlineExceeded, LedgerUnavailable
from claw_core.session import Deadlines

UNKNOWN = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    configure(tmp_path)
    return tmp_path


def kept(state: Path) -> list[str]:
    """Names of everything that is kept of the one group, below its current generation."""
    (folder,) = (state / "agents").glob("*-finance/claude")
    current = folder / "current"
    assert sorted(os.listdir(folder)) == sorted(["current", os.readlink(current)])
    return sorted(str(path.relative_to(current)) for path in current.rglob("*"))


def test_a_session_goes_on_in_another_instance(root: Path, state: Path) -> None:
    async def work() -> list[Any]:
        async with conversation(root) as first:
            answers = [await first.ask("count"), await first.ask("count")]
        async with conversation(root, session=first.session) as second:
            assert second.instance.name != first.instance.name
            answers.append(await second.ask("count"))
        answers.append(await ask(root, "count"))
        return answers

    answers = run(work())
    texts = [answer.text for answer in answers]
    assert texts == [f"prompt {n} of this session" for n in (1, 2, 3, 1)]
    assert len({answer.session for answer in answers[:3]}) == 1
    assert answers[3].session != answers[0].session
    assert answers[0].cost == 0.25
    assert kept(state) == [
        ".claude", ".claude.json", ".claude/projects",
        *sorted(f".claude/projects/{answers[n].session}.jsonl" for n in (0, 3)),
    ]  # fmt: skip


def test_messages_come_apart_and_the_last_one_is_the_answer(root: Path) -> None:
    said = bytearray()

    async def take(data: bytes) -> None:
        said.extend(data)

    async def work() -> str | None:
        async with conversation(root) as opened:
            return (await opened.ask("twice", text=take)).text

    assert run(work()) == "then I answer"
    assert said == b"first I look\n\nthen I answer"


def test_a_session_that_is_not_there_is_lost_and_the_next_prompt_starts_one(root: Path) -> None:
    async def work() -> list[Any]:
        async with conversation(root, session=UNKNOWN) as opened:
            return [await opened.ask("count"), await opened.ask("count")]

    lost, started = run(work())
    assert (lost.lost, lost.text, lost.session) == (True, None, None)
    assert lost.error == f"session {UNKNOWN} not found"
    assert started.text == "prompt 1 of this session"


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ("fail", "API Error: 529 overloaded"),
        ("die", "it ended with code 9"),
        ("nothing", "it ended without an answer"),
    ],
)
def test_what_the_agent_fails_at_is_an_answer(root: Path, prompt: str, error: str) -> None:
    answer = run(ask(root, prompt, environ={"ANTHROPIC_API_KEY": "k"}))
    assert (answer.text, answer.error) == (None, error)
    assert ("out of memory" in answer.stderr) == (prompt == "die")


def test_an_agent_without_credentials_is_told_which_it_looks_for(root: Path) -> None:
    answer = run(ask(root, "fail"))
    assert "(none of ANTHROPIC_API_KEY, " in (answer.error or "")


def test_an_agent_that_is_not_there_is_an_answer_with_the_runtimes_reason(root: Path) -> None:
    (root / "claw.toml").write_text("runtime = 'local'\n")
    answer = run(ask(root, "count"))
    assert answer.exit is not None
    assert answer.exit.code == 127
    assert "claude" in (answer.error or "")


def test_refused_credentials_end_an_agent_that_would_go_on_trying(root: Path) -> None:
    async def work() -> Any:
        async with conversation(root, patience=0.2) as opened:
            answers = [await opened.ask("refused"), await opened.ask("count")]
            assert opened.session == answers[0].session
            return answers

    refused, after = run(work())
    assert "its credentials are refused (401 authentication_failed)" in refused.error
    assert refused.exit is None
    assert after.text == "prompt 2 of this session"


def test_a_deadline_keeps_what_the_agent_has(root: Path, state: Path) -> None:
    async def work() -> str | None:
        async with conversation(root) as opened:
            with pytest.raises(DeadlineExceeded):
                await opened.ask("sleep /tmp/at-it", timeout=1.0)
            return opened.session

    session = run(work())
    assert f".claude/projects/{session}.jsonl" in kept(state)


def test_only_variables_that_are_set_are_passed_on(root: Path) -> None:
    (root / ".env").write_text("ANTHROPIC_BASE_URL=from-env-file\n")
    environ = {"ANTHROPIC_API_KEY": "from-environment", "CLAUDE_CODE_OAUTH_TOKEN": ""}

    async def work() -> list[str | None]:
        async with conversation(root, environ=environ) as opened:
            names = ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_OAUTH_TOKEN")
            return [(await opened.ask(f"variable {name}")).text for name in names]

    assert run(work()) == ["from-environment", "from-env-file", "not set"]


def test_what_the_owner_says_is_stronger_than_what_an_agent_needs(root: Path) -> None:
    lines = ("network = 'none'", "[groups.finance.env]", "ANTHROPIC_API_KEY = 'of the group'")
    configure(root, *lines)

    async def work() -> list[Any]:
        async with conversation(root, environ={"ANTHROPIC_API_KEY": "other"}) as opened:
            assert opened.instance.route.assessment.network == "none"
            return [(await opened.ask("variable ANTHROPIC_API_KEY")).text]

    assert run(work()) == ["of the group"]


def test_an_agent_gets_a_network_where_nobody_says_otherwise(root: Path) -> None:
    async def work() -> str:
        async with conversation(root) as opened:
            origin = opened.instance.route.merged.origin("network")
            assert opened.instance.route.assessment.network == "default"
            return origin

    assert run(work()) == "the agent claude: network"


def test_links_that_lead_out_are_left_out_and_all_else_is_kept(root: Path, state: Path) -> None:
    told: list[str] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.Progress):
            told.append(event.text)

    assert run(ask(root, "links", listener=listen)).text == "linked"
    names = kept(state)
    assert ".claude/inside" in names
    assert not {".claude/outside", ".claude/fifo"} & set(names)
    assert any("/etc/passwd, which is not inside it" in text for text in told)
    assert any("fifo is no file, directory or link" in text for text in told)


def test_state_that_cannot_be_kept_leaves_what_was_kept(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = run(ask(root, "count"))
    before = kept(state)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(agentstate, "_sync", full)
        with pytest.raises(LedgerUnavailable, match="cannot keep the state of claude"):
            run(ask(root, "count", session=answer.session))
    assert kept(state) == before
    again = run(ask(root, "count", session=answer.session))
    assert again.text == "prompt 2 of this session"


def test_two_runs_of_a_group_take_turns(root: Path, state: Path) -> None:
    waited: list[str] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.Notice) and "waiting" in event.text:
            waited.append(event.text)
            (root / "groups/finance/go").touch()

    async def work() -> None:
        async with conversation(root) as first:
            held = asyncio.create_task(first.ask("hold /workspace/group/go"))
            second = asyncio.create_task(ask(root, "count", listener=listen))
            await held
            assert not second.done()
        answer = await second
        assert answer.text == "prompt 1 of this session"

    run(work())
    assert "what claude keeps for" in waited[0]
    assert len([name for name in kept(state) if name.endswith(".jsonl")]) == 2


def test_waiting_for_another_run_has_an_end(root: Path) -> None:
    async def work() -> None:
        async with conversation(root):
            limits = Deadlines(capacity=0.1)
            with pytest.raises(CapacityExhausted, match="keeps for"):
                await ask(root, "count", deadlines=limits)

    run(work())


def test_what_there_was_before_is_the_beginning(root: Path, tmp_path: Path, state: Path) -> None:
    old = tmp_path / "old"
    (old / "projects").mkdir(parents=True)
    (old / "projects" / f"{UNKNOWN}.jsonl").write_text("line\nline\n")
    options = {"seed": {".claude": old}, "session": UNKNOWN}
    for number in (3, 4):
        answer = run(ask(root, "count", **options))
        assert answer.text == f"prompt {number} of this session"
    assert (old / "projects" / f"{UNKNOWN}.jsonl").read_text() == "line\nline\n"


def test_without_a_group_nothing_is_kept_and_no_session_goes_on(root: Path, state: Path) -> None:
    answer = run(ask(root, "count", group=None))
    assert answer.text == "prompt 1 of this session"
    assert not (state / "agents").exists()
    with pytest.raises(ConfigError, match="sessions are kept for groups only"):
        run(ask(root, "count", group=None, session=answer.session))


@pytest.mark.parametrize("session", ["", "-p", "a b", "x" * 200, "a\n", "../../etc"])
def test_an_id_that_cannot_be_is_refused_before_anything_starts(
    root: Path, state: Path, session: str
) -> None:
    with pytest.raises(ConfigError, match="cannot be the id of a session"):
        run(ask(root, "count", session=session))
    assert not (state / "runs.jsonl").exists()


@pytest.mark.parametrize(
    ("prompt", "why"),
    [("", "is empty"), (" \n", "is empty"), ("a\0b", "NUL"), ("\ud800", "no text")],
)
def test_what_can_be_no_prompt_is_refused(root: Path, prompt: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        run(ask(root, prompt))


def test_groups_of_two_roots_with_one_name_are_kept_apart(tmp_path: Path, state: Path) -> None:
    names = {AgentState(state, "a", tmp_path / one, "claude").folder for one in ("x", "y")}
    assert len(names) == 2
    strange = AgentState(state, "../../a", None, "claude").folder
    assert strange.parent.parent == state / "agents"


def test_the_record_is_that_of_the_agents_own_command(root: Path, state: Path) -> None:
    run(ask(root, "die"))
    (line,) = (state / "runs.jsonl").read_text().splitlines()
    assert json.loads(line)["exit"] == 9
