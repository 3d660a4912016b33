"""What a check has to itself in its own process: a ledger, the runtime, and instances of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import attrs

from claw_core.capture import Capture
from claw_core.errors import ClawError, TeardownFailed
from claw_core.host import Host
from claw_core.intent import Intent
from claw_core.lease import Lease
from claw_core.ledger import Ledger
from claw_core.model import IO, Assessment, Command, Control, Exit, Instance, Refusal, Resize, Spec
from claw_core.registry import Registry
from claw_core.tasks import in_thread
from claw_core.teardown import destroy
from claw_core.testing.contract.case import Case
from claw_core.testing.contract.heart import Heart
from claw_core.testing.contract.traced import Traced
from claw_core.testing.contract.verdict import LOADS, Broken, duty


@attrs.frozen
class Done:
    """How a command ended, and what it wrote."""

    exit: Exit
    out: bytes
    err: bytes

    def __str__(self) -> str:
        return f"{self.exit}, stdout {self.out[-200:]!r}, stderr {self.err[-200:]!r}"


@attrs.define(eq=False)
class Live:
    """One instance, driven hook by hook."""

    instance: Instance
    lease: Lease
    runtime: Traced

    @property
    def name(self) -> str:
        """The name of the instance."""
        return self.lease.name

    async def begin(self) -> None:
        """Prepare and start it."""
        await self.runtime.prepare(self.instance)
        await self.runtime.start(self.instance)

    async def run(
        self,
        *argv: str,
        stdin: bytes | AsyncIterator[bytes] | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        control: AsyncIterator[Control] | None = None,
        terminal: Resize | None = None,
        stdout: Capture | None = None,
        stderr: Capture | None = None,
    ) -> Done:
        """Run a command to its end; a single word is a program of the shell."""
        command = ("sh", "-c", *argv) if len(argv) == 1 else argv
        out, err = stdout or Capture(), stderr or Capture()
        data = once(stdin) if isinstance(stdin, bytes) else stdin
        ended = await self.runtime.execute(
            self.instance,
            Command(command, env or {}, workdir, terminal),
            IO(data, out, err, control),
        )
        return Done(ended, bytes(out.data), bytes(err.data))

    async def works_on(self, after: str) -> None:
        """See that another command runs after something.

        Raises:
            Broken: it does not.
        """
        done = await self.run("echo here")
        if done.out != b"here\n":
            raise Broken(f"after {after}: {done}", hook="execute")

    async def home(self) -> str:
        """Where commands can write: their home directory.

        Raises:
            Broken: there is none.
        """
        done = await self.run('cd "${HOME:?it is not set}" && pwd && : > .claw-kit')
        if done.exit.code or not done.out.startswith(b"/"):
            raise Broken(
                f"a command has no home directory that it can write to: {done}",
                hook="execute",
                promise=duty("execute"),
            )
        return done.out.decode().strip().rstrip("/")

    async def listed(self) -> bool:
        """Whether the runtime's own listing shows it."""
        return self.name in await self.runtime.list_instances(self.lease.intent.install)

    async def end(self) -> None:
        """Tear it down, and forget it when it is absent.

        Raises:
            TeardownFailed: it is still there.
        """
        await self.runtime.teardown(self.instance)
        if await self.listed():
            raise TeardownFailed("it is still listed after its teardown", phase="teardown")
        await in_thread(self.lease.release)

    async def end_late(self) -> None:
        """The same for a creation that was cut short, as core does it: its settle time counts.

        Raises:
            TeardownFailed: it is still there, or comes again and again.
        """
        settle = self.lease.intent.settle
        if not settle:
            await self.end()
            return
        outcome = await destroy(
            self.runtime,
            self.instance,
            self.lease,
            deadline=settle + self.runtime.seconds,
            settle=settle,
            patient=True,
        )
        if outcome.result != "gone":
            raise TeardownFailed(outcome.error or outcome.result, phase="teardown")


@attrs.define(eq=False)
class Stage:
    """What a check works with.

    Attributes:
        case: the runtime, and what it needs.
        say: tells the parent of a moment.
        ledger: the ledger of this check.
        runtime: the runtime, made from its settings.
        random: seeded.
    """

    case: Case
    say: Callable[[str], None]
    ledger: Ledger
    runtime: Traced
    random: random.Random

    @classmethod
    def open(cls, case: Case, say: Callable[[str], None]) -> Stage:
        """Find the runtime by its entry point.

        Raises:
            Broken: it is not there, or is no runtime.
        """
        ledger = Ledger.open(case.state)
        chance = random.Random(case.seed)  # noqa: S311
        return cls(case, say, ledger, made(case, case.settings, say), chance)

    def another(self) -> Traced:
        """The runtime as a reaper makes it: anew, from settings that were written down."""
        settings = json.loads(json.dumps(dict(self.runtime.settings)))
        return made(self.case, settings, self.say)

    def heart(self, name: str = "heart") -> Heart:
        """A heart of its own."""
        return Heart.make(self.case, name)

    async def assessed(self, spec: Spec) -> Assessment:
        """What the spec gets.

        Raises:
            Broken: it is refused.
        """
        answer = await self.runtime.assess(spec)
        if isinstance(answer, Refusal):
            hint = "; see `mounts` and `place` of the kit" if spec.mounts else ""
            raise Broken(
                f"it refuses {spec}: {answer.reason} ({answer.remedy}){hint}",
                hook="assess",
                promise=duty("assess"),
            )
        return answer

    async def claimed(self, spec: Spec | None = None, secrets: Mapping[str, str] = {}) -> Live:
        """An instance of which only the intent exists."""
        spec = spec or Spec()
        spec = attrs.evolve(spec, image=spec.image or self.case.image, secrets=tuple(secrets))
        assessment = await self.assessed(spec)
        intent = Intent.new(
            self.ledger.install,
            self.case.runtime,
            self.runtime.settings,
            image=spec.image,
            settle=assessment.settle,
        )
        lease = await in_thread(self.ledger.acquire, intent)
        self.say(f"name {lease.name}")
        host = Host(lease, self.case.runtime, secrets)
        return Live(Instance(lease.name, spec, host), lease, self.runtime)

    @contextlib.asynccontextmanager
    async def instance(
        self, spec: Spec | None = None, secrets: Mapping[str, str] = {}
    ) -> AsyncIterator[Live]:
        """An instance that runs, for the length of the block; what the block found comes first."""
        live = await self.claimed(spec, secrets)
        try:
            await live.begin()
            yield live
        except BaseException:
            with contextlib.suppress(Exception):  # the error of the block says what is wrong
                await live.end()
            raise
        await live.end()


def made(case: Case, settings: Mapping[str, Any], say: Callable[[str], None]) -> Traced:
    """A runtime as the registry finds it.

    Raises:
        Broken: it is not there, or is no runtime.
    """
    try:
        relay = Registry().resolve(case.runtime, settings)
    except ClawError as error:
        raise Broken(str(error), hook="runtime", promise=LOADS) from error
    return Traced(relay, say, case.hook_timeout)


async def once(*chunks: bytes) -> AsyncIterator[bytes]:
    """An input of these chunks."""
    for chunk in chunks:
        yield chunk


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether a condition becomes true in time."""
    loop = asyncio.get_running_loop()
    limit = loop.time() + seconds
    while not condition():
        if loop.time() > limit:
            return False
        await asyncio.sleep(0.005)
    return True
