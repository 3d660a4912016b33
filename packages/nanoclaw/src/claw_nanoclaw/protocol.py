"""What a NanoClaw host says to a container on standard input, and what it hears on standard output.

As of NanoClaw 1.2.53 (`src/container-runner.ts`, `container/agent-runner/src/index.ts`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

import attrs

from claw_core.errors import ConfigProblems

START: Final = "---NANOCLAW_OUTPUT_START---"
END: Final = "---NANOCLAW_OUTPUT_END---"
INPUT_LIMIT: Final = 64 << 20
"""Bytes of an input."""

Status: TypeAlias = Literal["success", "error"]


@attrs.frozen(kw_only=True)
class ContainerInput:
    """What a group's agent is to do.

    Attributes:
        prompt: what it is asked.
        group_folder: name of the group's folder.
        session_id: id of the agent's session to go on with; None starts one.
        chat_jid: the chat that it answers to.
        is_main: whether the group is the main one; None where the installation's word counts.
        is_scheduled_task: whether nobody is there who asks.
        assistant_name: what the group calls its agent.
        script: of a task: a program for bash that decides whether the agent is asked at all.
        secrets: name -> value, as hosts before 1.2.14 passed them.
    """

    prompt: str
    group_folder: str | None = None
    session_id: str | None = None
    chat_jid: str | None = None
    is_main: bool | None = None
    is_scheduled_task: bool = False
    assistant_name: str | None = None
    script: str | None = None
    secrets: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    @classmethod
    def from_json(cls, data: bytes) -> ContainerInput:
        """Read the one JSON document that a host writes; keys that are not known are passed over.

        Raises:
            ConfigProblems: everything that is wrong with it.
        """
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ConfigProblems.of([f"ContainerInput: it is no JSON: {error}"]) from None
        if not isinstance(value, dict):
            raise ConfigProblems.of(["ContainerInput: expected a JSON object"])
        problems = list(_problems(value))
        if problems:
            raise ConfigProblems.of(problems)
        named = {_NAMES[key]: one for key, one in value.items() if key in _NAMES}
        # Hosts write `null` and an empty id for what is not there.
        given = {name: one for name, one in named.items() if one not in (None, "")}
        return cls(**{"prompt": "", **given})


@attrs.frozen
class ContainerOutput:
    """One thing that a group's agent gave.

    Attributes:
        status: `success` or `error`.
        result: the answer; None where only the session's id is news: the agent waits for more.
        session_id: id of the agent's session, to go on with.
        error: what went wrong.
    """

    status: Status
    result: str | None = None
    session_id: str | None = None
    error: str | None = None

    def block(self) -> bytes:
        """The lines that a host looks for on standard output."""
        value: dict[str, Any] = {"status": self.status, "result": self.result}
        if self.session_id is not None:
            value["newSessionId"] = self.session_id
        if self.error is not None:
            value["error"] = self.error
        return f"{START}\n{json.dumps(value)}\n{END}\n".encode()


_NAMES: Final[Mapping[str, str]] = {
    "prompt": "prompt",
    "groupFolder": "group_folder",
    "sessionId": "session_id",
    "chatJid": "chat_jid",
    "isMain": "is_main",
    "isScheduledTask": "is_scheduled_task",
    "assistantName": "assistant_name",
    "script": "script",
    "secrets": "secrets",
}
_FLAGS: Final = frozenset({"isMain", "isScheduledTask"})


def _problems(value: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with an input, without quoting it: it may hold secrets."""
    if "prompt" not in value:
        yield "ContainerInput: prompt: it is missing"
    for key in _NAMES:
        one = value.get(key)
        if one is None:
            continue
        if key == "secrets":
            texts = isinstance(one, dict) and all(isinstance(text, str) for text in one.values())
            if not texts:
                yield "ContainerInput: secrets: expected an object of texts"
        elif key in _FLAGS:
            if not isinstance(one, bool):
                yield f"ContainerInput: {key}: expected true or false"
        elif not isinstance(one, str):
            yield f"ContainerInput: {key}: expected text"
