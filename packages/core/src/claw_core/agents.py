"""The agents that claw can ask: how each is started, and where it keeps what it remembers.

Commands, state and words of `claude` 2.1.332, `codex` 0.169.0, `opencode` 1.18.33 and `gemini`
0.61.0 were seen on the programs themselves, those of `kimi` 1.52.0 are in its documentation.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from claw_core import readings
from claw_core.errors import ConfigError
from claw_core.readings import Reading

Read: TypeAlias = Callable[[Mapping[str, Any], Reading], str]

SESSION: Final = "{session}"
"""The word of a command that becomes the id of a session."""
SESSION_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@attrs.frozen
class Agent:
    """A program that answers the prompt on its standard input, and goes on with its sessions.

    Attributes:
        name: what it is called on the command line and in `claw.toml`.
        start: command for a new session, with `{session}` where its id can be chosen.
        resume: command that goes on with the session `{session}`.
        read: takes one JSON object of its standard output and what is known so far, and returns
            the part of the answer that is new.
        state: paths below the home directory that hold its sessions and settings.
        lost: finds in what it writes that there is no such session to go on with.
        secrets: names of variables that it looks for; those that are set are passed on.
        env: variables that let it work alone and unattended.
    """

    name: str
    start: tuple[str, ...]
    resume: tuple[str, ...]
    read: Read
    state: tuple[str, ...]
    lost: str
    secrets: tuple[str, ...] = ()
    env: Mapping[str, str] = attrs.field(factory=dict)

    def command(
        self, session: str | None, arguments: Sequence[str] = ()
    ) -> tuple[tuple[str, ...], str | None]:
        """Return the command for one prompt, and the id of its session where that is known.

        Args:
            session: id of the session to go on with; None starts one.
            arguments: further arguments for the agent.
        """
        words = self.start if session is None else self.resume
        if session is None and SESSION in words:
            session = str(uuid.uuid4())
        chosen = [session or word if word == SESSION else word for word in words]
        return (*chosen, *arguments), session


def checked_session(text: str) -> str:
    """Return the id of a session.

    Raises:
        ConfigError: no session can have it.
    """
    if not SESSION_ID.fullmatch(text):
        raise ConfigError(
            f"{text[:60]!r} cannot be the id of a session",
            remedy="take it from the line `[session: ID]` of an earlier run",
        )
    return text


_ANTHROPIC: Final = (
    "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_OAUTH_TOKEN",
)  # fmt: skip
_OPENAI: Final = ("OPENAI_API_KEY", "OPENAI_BASE_URL")
_GOOGLE: Final = ("GEMINI_API_KEY", "GOOGLE_API_KEY")

_CLAUDE: Final = (
    "claude", "-p", "--output-format", "stream-json", "--verbose", "--include-partial-messages",
    "--dangerously-skip-permissions",
)  # fmt: skip
_CODEX: Final = ("--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
_OPENCODE: Final = ("opencode", "run", "--format", "json")
_GEMINI: Final = ("gemini", "-o", "stream-json", "--approval-mode", "yolo", "--skip-trust")
_KIMI: Final = ("kimi", "--print", "--output-format", "stream-json", "-S", SESSION)

AGENTS: Final[Mapping[str, Agent]] = {
    agent.name: agent
    for agent in (
        Agent(
            "claude",
            start=(*_CLAUDE, "--session-id", SESSION),
            resume=(*_CLAUDE, "--resume", SESSION),
            read=readings.claude,
            state=(".claude", ".claude.json"),
            lost="No conversation found",
            secrets=_ANTHROPIC,
            # As root it takes its freedom only where it is told that it is in a sandbox.
            env={"IS_SANDBOX": "1", "DISABLE_AUTOUPDATER": "1"},
        ),
        Agent(
            "codex",
            start=("codex", "exec", *_CODEX, "-"),
            resume=("codex", "exec", "resume", *_CODEX, SESSION, "-"),
            read=readings.codex,
            state=(".codex",),
            lost="no rollout found|session not found",
            secrets=("CODEX_API_KEY", *_OPENAI),
        ),
        Agent(
            "opencode",
            start=_OPENCODE,
            resume=(*_OPENCODE, "-s", SESSION),
            read=readings.opencode,
            state=(".local/share/opencode",),
            lost="Session not found",
            secrets=(*_ANTHROPIC[:2], _OPENAI[0], *_GOOGLE, "OPENROUTER_API_KEY"),
            env={
                "OPENCODE_CONFIG_CONTENT": '{"permission":"allow","share":"disabled"}',
                "OPENCODE_DISABLE_AUTOUPDATE": "1",
            },
        ),
        Agent(
            "gemini",
            start=(*_GEMINI, "--session-id", SESSION),
            resume=(*_GEMINI, "--resume", SESSION),
            read=readings.gemini,
            state=(".gemini",),
            lost="No previous sessions found|Invalid session identifier",
            secrets=_GOOGLE,
        ),
        Agent(
            # It makes a session of whatever id it is asked to go on with: none is ever lost.
            "kimi",
            start=_KIMI,
            resume=_KIMI,
            read=readings.kimi,
            state=(".kimi",),
            lost="Session not found",
            secrets=("KIMI_API_KEY", "MOONSHOT_API_KEY"),
        ),
    )
}
"""The agents of core, by their names."""
