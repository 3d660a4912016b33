"""Values of secrets in what claw says."""

from __future__ import annotations

import json
import logging
import urllib.parse

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from claw_core import events
from claw_core.errors import ClawError, RuntimeFault
from claw_core.redaction import Redactor, redacted

KEY = "-----BEGIN KEY-----\nabcdefghijklmnop\nqrstuvwxyz/+==\n-----END KEY-----\n"


@given(st.text(min_size=1), st.text(), st.text())
def test_a_value_is_never_left_in_a_text(value: str, before: str, after: str) -> None:
    assume(value not in "[secret NAME]" and not set(value) & set("[secrt NAME]"))
    assert value not in Redactor({"NAME": value})(before + value + after)


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        json.dumps(KEY),
        repr(KEY),
        urllib.parse.quote(KEY, safe=""),
        "the second line is abcdefghijklmnop",
        json.dumps({"line": "qrstuvwxyz/+=="}),
    ],
)
def test_forms_and_lines_of_a_value_are_hidden(form: str) -> None:
    shown = Redactor({"KEY": KEY})(form)
    assert "abcdef" not in shown
    assert "qrstuv" not in shown
    assert "[secret KEY]" in shown


def test_a_value_inside_another_is_no_way_to_see_the_other() -> None:
    redact = Redactor({"SHORT": "abc", "LONG": "abcdef"})
    assert redact("abcdef abc") == "[secret LONG] [secret SHORT]"


def test_it_learns() -> None:
    redact = Redactor()
    assert redact("word") == "word"
    redact.learn({"A": "word", "EMPTY": ""})
    assert redact("word") == "[secret A]"


def test_events_come_without_values() -> None:
    seen: list[events.Event] = []
    listener = Redactor({"A": "word"}).events(seen.append)
    listener(events.Notice("a word"))
    listener(events.Progress("r", "i", "a word"))
    listener(events.PhaseEnded("r", "i", "start", 0.1, "a word"))
    listener(events.PhaseStarted("r", "i", "start"))
    assert "word" not in repr(seen)
    assert len(seen) == 4


def test_logs_come_without_values(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("claw")
    with Redactor({"A": "word"}).logging():
        logger.error("a %s: %r", "failure", ValueError("word"))
    logger.error("a word after it")
    assert caplog.messages == ["a failure: ValueError('[secret A]')", "a word after it"]


def test_errors_their_causes_and_their_groups_come_without_values() -> None:
    cause = RuntimeFault("cause with word", remedy="word")
    outer = ClawError("outer with word", cleaned="word")
    outer.__cause__ = cause
    with pytest.raises(ExceptionGroup), redacted(Redactor({"A": "word"})):
        raise ExceptionGroup("both", [outer, ValueError("not claw's own words")])
    for error in (outer, cause):
        assert "word" not in str(error) + repr(error.args)
        assert "[secret A]" in str(error)
