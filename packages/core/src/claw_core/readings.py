"""What agents write on standard output, one JSON object a line, each in its own words.

An agent is not trusted: whatever is not as it should be counts as not said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

Event = Mapping[str, Any]
_REFUSED: Final = re.compile(r"\b(401|403)\b")
_MOST: Final = 1e9
"""Dollars that no answer costs."""


@attrs.define
class Reading:
    """What is known of one answer while it comes.

    Attributes:
        session: id of the session, as the agent says it.
        answer: what it said last, as far as it has come.
        error: why there is no answer.
        complaint: the last thing that went wrong without ending it.
        cost: in US dollars, as the agent counts: `claude` counts the whole session.
        refused: whether it goes on trying although its credentials are refused.
        partial: whether the answer comes in parts.
    """

    session: str | None = None
    answer: str | None = None
    error: str | None = None
    complaint: str | None = None
    cost: float | None = None
    refused: bool = False
    partial: bool = False
    _apart: bool = False

    def begin(self) -> None:
        """Another message begins."""
        self._apart = self._apart or bool(self.answer)
        self.answer = ""

    def say(self, text: str) -> str:
        """Take the next part of a message, and return it set apart from the one before."""
        self.answer = (self.answer or "") + text
        if not text:
            return ""
        self.refused = False
        apart, self._apart = self._apart, False
        return f"\n\n{text}" if apart else text


def claude(event: Event, reading: Reading) -> str:
    """Read `claude -p --output-format stream-json --verbose --include-partial-messages`."""
    kind = event.get("type")
    reading.session = _text(event, "session_id") or reading.session
    if event.get("parent_tool_use_id"):
        return ""  # what its helpers say is no answer
    if kind == "stream_event":
        reading.partial = True
        if _text(event, "event", "content_block", "type") == "text":
            reading.begin()
        if _text(event, "event", "delta", "type") == "text_delta":
            return reading.say(_text(event, "event", "delta", "text"))
    elif kind == "assistant" and not reading.partial:
        return _message(_at(event, "message", "content"), reading)
    elif kind == "system" and event.get("subtype") == "api_retry":
        reading.refused = event.get("error_status") in {401, 403}
        reading.complaint = f"{event.get('error_status')} {_text(event, 'error')}"
    elif kind == "result":
        reading.cost = _number(event.get("total_cost_usd"))
        text = _text(event, "result")
        if event.get("is_error"):
            errors = _at(event, "errors")
            said = [one for one in errors if isinstance(one, str)] if _is_list(errors) else []
            reading.error = text or "; ".join(said) or _text(event, "subtype") or "it failed"
        else:
            reading.answer = text
    return ""


def codex(event: Event, reading: Reading) -> str:
    """Read `codex exec --json`."""
    kind = event.get("type")
    if kind == "thread.started":
        reading.session = _text(event, "thread_id") or reading.session
    elif kind == "item.completed" and _text(event, "item", "type") == "agent_message":
        reading.begin()
        return reading.say(_text(event, "item", "text"))
    elif kind == "error":
        reading.complaint = _text(event, "message")
        reading.refused = _REFUSED.search(reading.complaint) is not None
    elif kind == "turn.failed":
        reading.error = _text(event, "error", "message") or reading.complaint or "it failed"
    return ""


def opencode(event: Event, reading: Reading) -> str:
    """Read `opencode run --format json`."""
    kind = event.get("type")
    reading.session = _text(event, "sessionID") or reading.session
    if kind == "text":
        reading.begin()
        return reading.say(_text(event, "part", "text"))
    if kind == "step_finish":
        reading.cost = (reading.cost or 0.0) + (_number(_at(event, "part", "cost")) or 0.0)
    elif kind == "error":
        said = _text(event, "error", "data", "message") or _text(event, "error", "name")
        reading.error = said or "it failed"
    return ""


def gemini(event: Event, reading: Reading) -> str:
    """Read `gemini -o stream-json`."""
    kind = event.get("type")
    if kind == "init":
        reading.session = _text(event, "session_id") or reading.session
    elif kind == "tool_use":
        reading.begin()
    elif kind == "message" and event.get("role") == "assistant":
        return reading.say(_text(event, "content"))
    elif kind == "error":
        reading.complaint = _text(event, "message")
    elif kind == "result" and event.get("status") == "error":
        reading.error = _text(event, "error", "message") or reading.complaint or "it failed"
    return ""


def kimi(event: Event, reading: Reading) -> str:
    """Read `kimi --print --output-format stream-json`."""
    if event.get("role") != "assistant":
        return ""
    return _message(event.get("content"), reading)


def _message(content: Any, reading: Reading) -> str:
    """A whole message: a text, or parts of which some are texts."""
    if isinstance(content, str):
        text = content
    else:
        parts = content if _is_list(content) else []
        text = "".join(_text(part, "text") for part in parts if _text(part, "type") == "text")
    if not text:
        return ""
    reading.begin()
    return reading.say(text)


def _at(value: Any, *path: str) -> Any:
    """What lies at a path of JSON objects; None where there is nothing."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _text(value: Any, *path: str) -> str:
    """The text at a path; an empty one where there is none."""
    found = _at(value, *path)
    return found if isinstance(found, str) else ""


def _number(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 <= value < _MOST else None


def _is_list(value: Any) -> bool:
    return isinstance(value, list)
