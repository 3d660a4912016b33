"""An agent in an instance of its own, asked one prompt after the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import attrs

from claw_core.agents import AGENTS, SESSION_ID, Agent, checked_session
from claw_core.agentstate import LIMIT, AgentState
from claw_core.capture import Capture
from claw_core.config.settings import merge
from claw_core.errors import ConfigError, DeadlineExceeded, RuntimeFault
from claw_core.readings import Reading
from claw_core.session import Deadlines
from claw_core.tasks import in_thread

if TYPE_CHECKING:
    from claw_core.config.config import Config
    from claw_core.model import Exit, Sink
    from claw_core.router import Router
    from claw_core.session import Session

PROMPT_LIMIT: Final = 32 << 20
"""Bytes of a prompt."""
LINE_LIMIT: Final = 64 << 20
"""Bytes of a line that an agent writes; one that is longer counts as not said."""
PATIENCE: Final = 10.0
"""Seconds that an agent may go on when its credentials are refused: some try for minutes."""
_TAIL: Final = 4096
_LOOK: Final = 'echo "$HOME"; cd; for path; do [ ! -e "$path" ] || echo "$path"; done'
_LOOK_TIMEOUT: Final = 60.0
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@attrs.frozen
class Answer:
    """What an agent gave for one prompt.

    Attributes:
        session: id of its session, to go on with; None where the agent has not said it.
        text: the answer, or None where there is none.
        error: why there is none.
        lost: whether that is because the session to go on with does not exist.
        cost: in US dollars, as the agent counts: `claude` counts the whole session.
        exit: how its command ended; None where it was stopped.
        stderr: the end of what it wrote on its standard error.
    """

    session: str | None
    text: str | None
    error: str | None = None
    lost: bool = False
    cost: float | None = None
    exit: Exit | None = None
    stderr: str = ""


def agent_named(name: str) -> Agent:
    """Return an agent of core, or of a plugin: an entry point of that name in `claw.plugins`.

    Raises:
        ConfigError: there is no such agent.
        PluginError: the plugin cannot be loaded.
    """
    if name in AGENTS:
        return AGENTS[name]
    from claw_core.registry import load_plugin  # most runs need none

    found = load_plugin(name)
    if not isinstance(found, Agent):
        raise ConfigError(
            f"there is no agent {name!r}; there are {', '.join(AGENTS)}",
            remedy="name one of them, or install a plugin that offers it",
        )
    return found


def configured_agent(config: Config, group: str | None) -> Agent | None:
    """Return the agent that is configured for a group, or for no group; None where none is.

    Raises:
        ConfigProblems: all that is wrong in the configuration.
        ConfigError: there is no such agent.
    """
    merged = merge(*config.defaults) if group is None else config.group(group).merged
    name = merged.settings.agent
    return None if name is None else agent_named(name)


def checked_prompt(prompt: str) -> bytes:
    """Return a prompt as an agent reads it.

    Raises:
        ConfigError: no agent could read it.
    """
    try:
        data = prompt.encode()
    except UnicodeEncodeError:
        raise ConfigError("the prompt is no text", remedy="give it in UTF-8") from None
    if not prompt.strip():
        raise ConfigError("the prompt is empty", remedy="say what the agent is to do")
    if "\0" in prompt:
        raise ConfigError(
            "the prompt has a NUL byte", remedy="give binary data as a file: see --upload"
        )
    if len(data) > PROMPT_LIMIT:
        raise ConfigError(
            f"the prompt has {len(data)} bytes, more than {PROMPT_LIMIT}",
            remedy="give long texts as files: see --upload",
        )
    return data


@attrs.define(eq=False)
class Conversation:
    """An agent in an open instance; get one from `Conversation.open`.

    Attributes:
        agent: the agent.
        instance: the session of claw that it runs in.
        session: id of the agent's session that the next prompt goes on with; None starts one.
    """

    agent: Agent
    instance: Session
    session: str | None
    _arguments: tuple[str, ...]
    _state: AgentState | None
    _patience: float

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        router: Router,
        agent: Agent | None = None,
        *,
        group: str | None = None,
        session: str | None = None,
        arguments: Sequence[str] = (),
        seed: Mapping[str, Path] = {},
        patience: float = PATIENCE,
        deadlines: Deadlines | None = None,
        **options: Any,
    ) -> AsyncIterator[Conversation]:
        """Open an instance with what the agent has kept of the group; nothing is asked yet.

        Only one run at a time has what is kept of a group; another one waits for it.

        Args:
            router: opens it.
            agent: whom to ask; None is whom the configuration names.
            group: the group; without one, nothing is kept.
            session: id of the agent's session to go on with.
            arguments: further arguments for the agent.
            seed: name -> path of what the agent finds where nothing was ever kept.
            patience: seconds that the agent may go on when its credentials are refused.
            deadlines: upper bounds for what the runtime does; `capacity` also for the waiting.
            **options: everything else that `Router.session` takes.

        Raises:
            ConfigError: a session is to be gone on with, and there is no group that kept it; or no
                agent is named anywhere.
            CapacityExhausted: another run of the group did not end in time.
            ClawError: as `Router.session`.
        """
        limits = deadlines or Deadlines()
        config = router.planner.config
        agent = agent or await in_thread(configured_agent, config, group)
        if agent is None:
            raise ConfigError("no agent is configured", remedy="name one, or set it in claw.toml")
        if session is not None and group is None:
            raise ConfigError(
                "sessions are kept for groups only", remedy="name the group of the session"
            )
        session = None if session is None else checked_session(session)
        async with contextlib.AsyncExitStack() as stack:
            state = None
            if group is not None:
                state = AgentState(router.ledger.state, group, config.root, agent.name, seed)
                await stack.enter_async_context(state.alone(limits.capacity, router.tell))
            instance = await stack.enter_async_context(
                router.session(group=group, agent=agent, deadlines=limits, **options)
            )
            opened = cls(agent, instance, session, tuple(arguments), state, patience)
            await opened._restore()
            yield opened

    async def ask(
        self,
        prompt: str,
        *,
        text: Sink | None = None,
        stderr: Sink | None = None,
        timeout: float | None = None,
        idle_timeout: float | None = None,
    ) -> Answer:
        """Give the agent a prompt, and return when it has answered and its state is kept.

        What the agent itself fails at is no exception. A task that is cancelled keeps nothing of
        this prompt.

        Args:
            prompt: what it reads on its standard input.
            text: awaited for every part of the answer, in UTF-8, as it comes.
            stderr: the same for the agent's standard error.
            timeout: seconds until it is stopped; None is what is configured.
            idle_timeout: seconds without output until it is stopped; None is what is configured.

        Raises:
            ConfigError: this can be no prompt; nothing was asked.
            DeadlineExceeded: it was stopped; its state is kept all the same.
            ClawError: as `Session.run`; or its state cannot be kept, and what was kept counts.
        """
        data = checked_prompt(prompt)
        command, chosen = self.agent.command(self.session, self._arguments)
        lines = _Lines(self.agent, Reading(chosen), text, self._patience)
        tail = _Tail(stderr)
        ended = None
        try:
            async with lines.timer:
                ended = await self.instance.run(
                    command,
                    stdin=data,
                    stdout=lines,
                    stderr=tail,
                    timeout=timeout,
                    idle_timeout=idle_timeout,
                )
                await lines.end()
        except TimeoutError:
            if not lines.timer.expired():
                raise
        except DeadlineExceeded:
            await self._go_on(lines.reading, chosen)
            raise
        answer = self._answer(lines.reading, ended, tail.text())
        if answer.lost:
            self.session = None
        else:
            await self._go_on(lines.reading, chosen)
        return attrs.evolve(answer, session=self.session)

    def _answer(self, reading: Reading, ended: Exit | None, stderr: str) -> Answer:
        error = reading.error
        if ended is None:
            error = f"its credentials are refused ({reading.complaint}), so it was stopped"
        elif ended.code and not error:
            error = ended.reason or reading.complaint or f"it ended with code {ended.code}"
        elif reading.answer is None and not error:
            error = "it ended without an answer"
        said = f"{error}\n{stderr}"
        lost = bool(error and self.session and re.search(self.agent.lost, said, re.IGNORECASE))
        if lost:
            error = f"session {self.session} not found"
        elif error and not self._credentials():
            error = f"{error} (none of {', '.join(self.agent.secrets)} is set)"
        text = None if error else reading.answer
        return Answer(None, text, error, lost, reading.cost, ended, stderr)

    def _credentials(self) -> bool:
        """Whether there is any of the variables that the agent looks for."""
        spec = self.instance.spec
        return any(name in spec.env or name in spec.secrets for name in self.agent.secrets)

    async def _go_on(self, reading: Reading, chosen: str | None) -> None:
        """Remember which session the next prompt goes on with, and keep the agent's state."""
        said = reading.session
        self.session = said if said and SESSION_ID.fullmatch(said) else chosen
        if self._state is None:
            return
        home, there = await self._look()
        if not there:
            return  # the agent never ran: what was kept before still counts
        async with self._state.generation() as folder:
            for path in there:
                await self.instance.download(f"{home}/{path}", folder, limit=LIMIT, lenient=True)

    async def _restore(self) -> None:
        """Put back what the agent has kept."""
        if self._state is None:
            return
        kept = {path: self._state.kept(PurePosixPath(path).name) for path in self.agent.state}
        if any(kept.values()):
            home, _ = await self._look()
            for path, source in kept.items():
                if source is not None:
                    await self.instance.upload(source, f"{home}/{path}")

    async def _look(self) -> tuple[str, list[str]]:
        """The home directory inside, and which paths of the agent's state are there."""
        found = Capture(1 << 16)
        ended = await self.instance.run(
            ("sh", "-c", _LOOK, "sh", *self.agent.state),
            stdout=found,
            timeout=_LOOK_TIMEOUT,
            recorded=False,
        )
        home, *there = found.data.decode(errors="replace").splitlines() or [""]
        if ended.code or not home.startswith("/"):
            raise RuntimeFault(
                f"cannot find the home directory of {self.agent.name} in the instance",
                runtime=self.instance.relay.name,
                instance=self.instance.name,
                remedy="see that the image has a shell, and the instance a HOME",
            )
        return home.rstrip("/"), [path for path in self.agent.state if path in there]


@attrs.define(eq=False)
class _Lines:
    """A sink for an agent's standard output, which hands on the answer that is in it.

    Attributes:
        timer: expires when the agent's credentials are refused and its patience is over.
    """

    _agent: Agent
    reading: Reading
    _text: Sink | None
    _patience: float
    timer: asyncio.Timeout = attrs.field(init=False, factory=lambda: asyncio.timeout(None))
    _buffer: bytearray = attrs.field(init=False, factory=bytearray)

    async def __call__(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            await self._line(bytes(self._buffer) + line)
            self._buffer.clear()
        if len(self._buffer) + len(rest) <= LINE_LIMIT:
            self._buffer += rest

    async def end(self) -> None:
        """Take what is left: a last line without its end."""
        await self._line(bytes(self._buffer))

    async def _line(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            return  # agents also write what is meant for people
        if not isinstance(event, dict):
            return
        said = self._agent.read(event, self.reading)
        if self.reading.refused != (self.timer.when() is not None) and not self.timer.expired():
            until = asyncio.get_running_loop().time() + self._patience
            self.timer.reschedule(until if self.reading.refused else None)
        if said and self._text is not None:
            await self._text(said.encode(errors="replace"))


@attrs.define(eq=False)
class _Tail:
    """A sink that remembers the end of what it hands on."""

    _sink: Sink | None
    _end: bytes = attrs.field(init=False, default=b"")

    async def __call__(self, data: bytes) -> None:
        self._end = (self._end + data)[-_TAIL:]
        if self._sink is not None:
            await self._sink(data)

    def text(self) -> str:
        """The end, as a message may quote it."""
        return _COLOUR.sub("", self._end.decode(errors="replace")).strip()
