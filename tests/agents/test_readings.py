"""What agents write is read: lines as they were seen, and lines that nobody should write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claw_core.agents import AGENTS
from claw_core.readings import Reading

SAID = Path(__file__).with_name("said")
"""What each agent wrote when it was asked; of kimi, what its documentation shows."""


def lines(name: str) -> list[Any]:
    return [json.loads(line) for line in (SAID / f"{name}.jsonl").read_text().splitlines()]


def read(agent: str, *events: Any) -> tuple[Reading, str]:
    reading = Reading()
    said = [AGENTS[agent].read(event, reading) for event in events]
    return reading, "".join(said)


@pytest.mark.parametrize(
    ("agent", "session", "cost"),
    [
        ("claude", "11111111-1111-4111-8111-111111111111", 0.00014),
        ("codex", "01a2237c-016b-7e01-9d32-2f0a18a53870", None),
        ("opencode", "ses_ddc822254ffeHM79Q2OReFVJcT", 0.000105),
        ("gemini", "11111111-1111-4111-8111-111111111111", None),
        ("kimi", None, None),
    ],
)
def test_an_answer_is_read(agent: str, session: str | None, cost: float | None) -> None:
    reading, said = read(agent, *lines(agent))
    assert (reading.answer, said) == ("The answer is 42.", "The answer is 42.")
    assert (reading.session, reading.cost, reading.error) == (session, cost, None)


def test_every_agent_is_read_here() -> None:
    assert {path.stem for path in SAID.glob("*.jsonl")} == {*AGENTS, "errors"}


@pytest.mark.parametrize("case", lines("errors"), ids=lambda case: case["error"])
def test_an_error_is_read(case: dict[str, Any]) -> None:
    reading, said = read(case["agent"], case["line"])
    assert (reading.error, said) == (case["error"], "")


@pytest.mark.parametrize(
    ("agent", "event"),
    [
        (
            "claude",
            {"type": "system", "subtype": "api_retry", "error_status": 401, "error": "no"},
        ),
        ("codex", {"type": "error", "message": "Reconnecting... 1/5 (unexpected status 401 x)"}),
    ],
)
def test_a_refusal_that_is_tried_again_is_seen_until_something_is_said(
    agent: str, event: Any
) -> None:
    reading, _ = read(agent, event)
    assert reading.refused
    assert "401" in (reading.complaint or "")
    for later in lines(agent):
        AGENTS[agent].read(later, reading)
    assert not reading.refused


def test_other_failures_that_are_tried_again_are_no_refusal() -> None:
    overloaded = {"type": "system", "subtype": "api_retry", "error_status": 529, "error": "busy"}
    assert not read("claude", overloaded)[0].refused
    assert not read("codex", {"type": "error", "message": "stream disconnected"})[0].refused


def test_whole_messages_are_read_where_no_parts_come() -> None:
    whole = [event for event in lines("claude") if event["type"] != "stream_event"]
    reading, said = read("claude", *whole)
    assert said == reading.answer == "The answer is 42."


def test_what_helpers_of_an_agent_say_is_no_answer() -> None:
    aside = [event | {"parent_tool_use_id": "toolu_1"} for event in lines("claude")[:-1]]
    reading, said = read("claude", *aside)
    assert (said, reading.answer) == ("", None)


def test_messages_around_a_tool_come_apart() -> None:
    part = lines("gemini")[2]
    reading, said = read("gemini", part, {"type": "tool_use"}, {"type": "tool_use"}, part)
    assert said == "The answer \n\nThe answer "
    assert reading.answer == "The answer "


NAMES = sorted(
    {"cost", "errors", "error", "message", "result", "total_cost_usd", "data", "is_error"}
    | {key for name in AGENTS for event in lines(name) for key in event}
)
KINDS = sorted({event.get("type", "") for name in AGENTS for event in lines(name)} | {"error"})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(
    st.sampled_from(sorted(AGENTS)),
    st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(NAMES), JSON))),
)
def test_whatever_an_agent_writes_is_survived(agent: str, events: list[tuple[str, Any]]) -> None:
    reading = Reading()
    for kind, rest in events:
        assert isinstance(AGENTS[agent].read({**rest, "type": kind}, reading), str)
    for value in (reading.session, reading.answer, reading.error):
        assert value is None or isinstance(value, str)
    assert reading.cost is None or reading.cost >= 0


@pytest.mark.parametrize("agent", sorted(AGENTS))
def test_a_prompt_is_never_an_argument_and_an_id_goes_where_it_belongs(agent: str) -> None:
    command, session = AGENTS[agent].command(None, ("--model", "m"))
    again, same = AGENTS[agent].command("abc", ("--model", "m"))
    assert command[0] == again[0] == agent
    assert command[-2:] == again[-2:] == ("--model", "m")
    assert "{session}" not in command + again
    assert (session is None) == (session not in command)
    assert "abc" in again
    assert same == "abc"
