"""Asking an agent from the command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from claw_core.capture import Capture
from claw_core.cli.configuration import load
from claw_core.cli.progress import ProgressLine
from claw_core.cli.render import document, harmless, say
from claw_core.cli.run import JSON_LIMIT, Outcome, performed, text
from claw_core.cli.streams import Reader, Writer
from claw_core.conversation import (
    PROMPT_LIMIT,
    Answer,
    Conversation,
    agent_named,
    checked_prompt,
    configured_agent,
)
from claw_core.errors import ConfigError

if TYPE_CHECKING:
    from claw_core.agents import Agent
    from claw_core.cli.options import Options
    from claw_core.config.config import Config
    from claw_core.router import Router


async def ask(options: Options) -> int:
    """Ask an agent one thing, and return the exit code."""
    options.check()
    config = load(options.config, options.root, for_groups=options.group is not None)
    agent = _agent(options, config)
    question = Question(options, agent, await _prompt(options))
    outcome = await performed(options, config, question.work)
    answer, session = question.answer, question.session
    if answer is not None and answer.error:
        say(f"{agent.name}: {answer.error}")
    if options.json:
        document(outcome.to_json() | question.to_json())
    elif session and not options.quiet:
        sys.stderr.write(f"[session: {harmless(session)}]\n")
    failed = answer is not None and answer.error
    return outcome.code() or (1 if failed else 0)


async def serve(options: Options) -> int:
    """Let the plugin that knows NanoClaw speak its protocol, and return the exit code."""
    from claw_core.registry import load_plugin

    if options.json or options.prompt is not None or options.session is not None:
        raise ConfigError(
            "--stdio takes prompt and session from standard input, and answers in its own way",
            remedy="leave --json, --prompt and --session out",
        )
    options.check()
    speak = load_plugin("stdio")
    if speak is None:
        raise ConfigError(
            "nothing here speaks NanoClaw's protocol", remedy="pip install claw-nanoclaw"
        )
    progress = ProgressLine(quiet=options.quiet, verbose=options.verbose)
    code: int = await speak(
        Reader(0).chunks(),
        Writer(1),
        Writer(2),
        config=load(options.config, options.root),
        listener=progress,
        group=options.group,
        agent=options.agent and agent_named(options.agent),
        arguments=options.command,
        timeout=options.timeout,
        idle_timeout=options.idle_timeout,
        **options.asked(),
    )
    return code


@attrs.define(eq=False)
class Question:
    """A prompt, and what became of it.

    Attributes:
        options: what the command line asks for.
        agent: whom to ask.
        prompt: what to ask.
        session: id of the agent's session, as soon as it is known.
        answer: what came of it.
    """

    options: Options
    agent: Agent
    prompt: str
    session: str | None = None
    answer: Answer | None = None
    _stderr: Capture | None = attrs.field(init=False, default=None)

    async def work(self, router: Router, outcome: Outcome) -> None:
        """Ask, in an instance of its own."""
        options = self.options
        said = _Said(None if options.json else Writer(1))
        self._stderr = Capture(JSON_LIMIT) if options.json else None
        async with Conversation.open(
            router,
            self.agent,
            group=options.group,
            session=options.session,
            arguments=options.command,
            workspace=options.workspace(),
            **options.asked(),
        ) as conversation:
            outcome.record = conversation.instance.record
            for source, target in options.uploads:
                await conversation.instance.upload(Path(source), target)
            try:
                self.answer = await conversation.ask(
                    self.prompt,
                    text=said,
                    stderr=self._stderr or Writer(2),
                    timeout=options.timeout,
                    idle_timeout=options.idle_timeout,
                )
            finally:
                self.session = conversation.session
            await said.end(self.answer.text)
            for source, target in options.downloads:
                await conversation.instance.download(source, Path(target))

    def to_json(self) -> dict[str, Any]:
        """What `--json` says of the agent beside the record of the run."""
        answer = self.answer or Answer(self.session, None)
        shown = {
            "name": self.agent.name,
            "session": self.session,
            "answer": answer.text,
            "error": answer.error,
            "cost": answer.cost,
        }
        return {
            "agent": shown,
            **text("stderr", self._stderr.data if self._stderr else bytearray()),
        }


@attrs.define(eq=False)
class _Said:
    """A sink for the answer, which ends with a line's end."""

    _sink: Writer | None
    _last: bytes = attrs.field(init=False, default=b"")

    async def __call__(self, data: bytes) -> None:
        self._last = data[-1:]
        if self._sink is not None:
            await self._sink(data)

    async def end(self, answer: str | None) -> None:
        """Write the answer if nothing of it has come, and the end of its line."""
        if not self._last and answer:
            await self(answer.encode(errors="replace"))
        if self._last not in {b"", b"\n"}:
            await self(b"\n")


def _agent(options: Options, config: Config) -> Agent:
    if options.agent is not None:
        return agent_named(options.agent)
    agent = configured_agent(config, options.group)
    if agent is not None:
        return agent
    if options.prompt is None and options.session is None:
        raise click.UsageError("name a COMMAND to run, or an agent to ask with --agent")
    raise ConfigError("no agent is configured", remedy="name one with --agent, or in claw.toml")


async def _prompt(options: Options) -> str:
    """What to ask: a text of the command line, or all of standard input.

    Raises:
        ConfigError: it can be no prompt.
    """
    if options.prompt is not None:
        checked_prompt(options.prompt)
        return options.prompt
    if os.isatty(0) and not options.quiet:
        say("type what you want to ask, and end it with Ctrl-D")
    data = bytearray()
    async for chunk in Reader(0).chunks():
        data += chunk
        if len(data) > PROMPT_LIMIT:
            raise ConfigError(
                f"the prompt has more than {PROMPT_LIMIT} bytes",
                remedy="give long texts as files: see --upload",
            )
    try:
        prompt = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the prompt is not UTF-8 (byte {error.start})",
            remedy="give binary data as a file: see --upload",
        ) from None
    checked_prompt(prompt)
    return prompt
