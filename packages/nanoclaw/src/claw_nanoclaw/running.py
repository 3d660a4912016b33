"""One run of a group's agent: the first prompt, its follow-ups, and the end."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import attrs

from claw_core import events
from claw_core.conversation import Conversation, checked_prompt
from claw_core.errors import DeadlineExceeded
from claw_core.router import Router
from claw_core.tasks import in_thread
from claw_nanoclaw import task
from claw_nanoclaw.inbox import Closed, Inbox
from claw_nanoclaw.plan import Plan, plan
from claw_nanoclaw.protocol import ContainerInput, ContainerOutput

if TYPE_CHECKING:
    from claw_core.agents import Agent
    from claw_core.model import Sink
    from claw_nanoclaw.installation import NanoClaw


@attrs.frozen(kw_only=True)
class Run:
    """What is to be run, and how.

    Attributes:
        installation: the installation.
        folder: the name of the group's folder.
        given: what the agent is to do.
        agent: whom to ask; None is whom `claw.toml`, the database or `.env` names, else `claude`.
        arguments: further arguments for the agent.
        follow: whether to wait for follow-ups after an answer, until the host wants an end.
        timeout: seconds without an output after which it is ended; None is NanoClaw's rule.
        idle_timeout: seconds in which the agent itself may be silent.
        text: awaited for every part of an answer as it comes.
        stderr: the same for what the agent writes for people.
        listener: gets every event.
        asked: what the instance shall be, as `Router.session` takes it.
    """

    installation: NanoClaw
    folder: str
    given: ContainerInput = attrs.field(repr=False)
    agent: Agent | None = None
    arguments: Sequence[str] = ()
    follow: bool = False
    timeout: float | None = None
    idle_timeout: float | None = None
    text: Sink | None = None
    stderr: Sink | None = None
    listener: events.Listener = events.ignore
    asked: Mapping[str, Any] = attrs.field(factory=dict, repr=False)

    @classmethod
    def of(
        cls, installation: NanoClaw, folder: str, given: ContainerInput, options: dict[str, Any]
    ) -> Self:
        """Tell what is said of the run from what the instance shall be."""
        own = {field.name for field in attrs.fields(cls)} - {"asked"}
        said = {name: value for name, value in options.items() if name in own}
        asked = {name: value for name, value in options.items() if name not in own}
        return cls(installation=installation, folder=folder, given=given, asked=asked, **said)

    async def outputs(self) -> AsyncGenerator[ContainerOutput, None]:
        """Run it; see `NanoClaw.run_group`."""
        checked_prompt(self.given.prompt)
        planned = await in_thread(plan, self)
        for note in planned.notes:
            self._tell(note)
        asked = dict(self.asked)
        mounts = (*planned.mounts, *asked.pop("mounts", ()))
        env = {**planned.env, **(asked.pop("env", None) or {})}
        secrets = (*asked.pop("secrets", ()), *self.given.secrets)
        async with (
            Router.open(config=planned.config, listener=self.listener) as router,
            Conversation.open(
                router,
                planned.agent,
                group=self.folder,
                session=self.given.session_id,
                arguments=self.arguments,
                seed=planned.seed,
                mounts=mounts,
                env=env,
                secrets=secrets,
                **asked,
            ) as conversation,
        ):
            prompt = await self._first_prompt(conversation)
            if prompt is None:
                yield ContainerOutput("success")
                return
            # Closing this generator must end the inner one before the instance is torn down.
            async with contextlib.aclosing(self._turns(conversation, planned, prompt)) as turns:
                async for output in turns:
                    yield output

    async def _first_prompt(self, conversation: Conversation) -> str | None:
        """What the agent is asked first; None where a task's script wants it left alone."""
        given = self.given
        if not given.is_scheduled_task:
            return given.prompt
        if not given.script:
            return f"{task.HEADER}{given.prompt}"
        wakes, data = await task.wakes(conversation.instance, given.script, self.stderr)
        found = f"Output of its script:\n{json.dumps(data, indent=2)}\n\n"
        return f"{task.HEADER}{found}{given.prompt}" if wakes else None

    async def _turns(
        self, conversation: Conversation, planned: Plan, prompt: str
    ) -> AsyncGenerator[ContainerOutput, None]:
        """Ask, and go on with follow-ups until the host wants an end or nothing happens."""
        inbox = self._inbox(planned)
        if inbox is not None:
            prompt = "\n".join([prompt, *await inbox.begin()])
        answered = False
        while True:
            try:
                answer = await conversation.ask(
                    prompt,
                    text=self.text,
                    stderr=self.stderr,
                    timeout=planned.timeout,
                    idle_timeout=self.idle_timeout,
                )
            except DeadlineExceeded as error:
                if error.phase != "execute":
                    raise
                if answered:  # as NanoClaw: what has given something is idle, and ends well
                    self._tell(str(error))
                else:
                    yield ContainerOutput("error", None, conversation.session, error.message)
                return
            if answer.error is not None:
                said = "\n".join(filter(None, (answer.error, answer.stderr)))
                failed = f"{conversation.agent.name}: {said}"
                yield ContainerOutput("error", None, answer.session, failed)
                return
            answered = True
            yield ContainerOutput("success", answer.text, answer.session)
            if inbox is None or await inbox.closed():
                return
            yield ContainerOutput("success", None, answer.session)
            try:
                prompt = "\n".join(await inbox.wait(time.monotonic() + planned.timeout))
            except (Closed, TimeoutError):
                return

    def _inbox(self, planned: Plan) -> Inbox | None:
        if not self.follow:
            return None
        if planned.ipc is None:
            self._tell(f"no follow-ups: there is no directory data/ipc/{self.folder}")
            return None
        return Inbox(planned.ipc, self._tell)

    def _tell(self, text: str) -> None:
        self.listener(events.Notice(text))
