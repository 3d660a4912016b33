"""`claw run`: one command or one prompt, one instance, nothing left behind."""

from __future__ import annotations

import base64
import functools
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from claw_core import units
from claw_core.cli import options as parse
from claw_core.cli.configuration import configured, load
from claw_core.cli.options import Options
from claw_core.cli.progress import ProgressLine
from claw_core.cli.render import Parsed, document, exit_code, failures, say
from claw_core.cli.signals import end_with
from claw_core.cli.streams import Reader, Writer
from claw_core.errors import ClawError, TeardownFailed

if TYPE_CHECKING:
    from claw_core.config.config import Config
    from claw_core.eventlog import EventLog
    from claw_core.events import Event, Listener
    from claw_core.router import Router
    from claw_core.runs import Record

JSON_LIMIT = 16 << 20
"""Bytes of each stream that `--json` keeps in its document."""


@click.command(
    "run", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False}
)
@click.option(
    "-g",
    "--group",
    metavar="GROUP",
    help="Run for a group: as it is configured, its folder writable at /workspace/group.",
)
@click.option("--agent", metavar="NAME", help="Ask this agent; COMMAND has arguments for it.")
@click.option(
    "-p", "--prompt", metavar="TEXT", help="What to ask the agent; else it is standard input."
)
@click.option("--session", metavar="ID", help="Go on with this session of the agent.")
@click.option("--stdio", is_flag=True, help="Speak NanoClaw's protocol on standard streams.")
@click.option("-r", "--runtime", metavar="NAME", help="Runtime to use; else the first that fits.")
@click.option("--image", metavar="IMAGE", help="What the runtime starts from.")
@click.option(
    "--mount",
    "mounts",
    multiple=True,
    metavar="SRC:DST[:rw]",
    type=Parsed("mount", parse.mount),
    help="Show a host path inside; read-only unless `:rw`.",
)
@click.option(
    "--upload",
    "uploads",
    multiple=True,
    metavar="SRC:DST",
    type=Parsed("upload", parse.pair),
    help="Copy a host path in before the command runs.",
)
@click.option(
    "--download",
    "downloads",
    multiple=True,
    metavar="SRC:DST",
    type=Parsed("download", parse.pair),
    help="Copy a path out after the command has run.",
)
@click.option(
    "-e",
    "--env",
    "variables",
    multiple=True,
    metavar="NAME[=VALUE]",
    type=Parsed("variable", parse.variable),
    help="Set a variable for the command.",
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME",
    type=Parsed("secret", parse.secret),
    help="Pass a variable of yours, or of .env, whose value never touches disk or arguments.",
)
@click.option(
    "--network", type=click.Choice(["none", "default"]), help="`none` where the runtime can."
)
@click.option("--cpus", type=click.FloatRange(min=0, min_open=True), help="Number of processors.")
@click.option("--memory", type=Parsed("size", units.size), metavar="SIZE", help="For instance 2g.")
@click.option("--processes", type=click.IntRange(min=1), help="Number of processes and threads.")
@click.option(
    "--timeout",
    type=Parsed("duration", units.duration),
    metavar="TIME",
    help="Stop the command after this time, for instance 10m (exit code 124).",
)
@click.option(
    "--idle-timeout",
    type=Parsed("duration", units.duration),
    metavar="TIME",
    help="Stop the command when it is silent for this long (exit code 124).",
)
@click.option("-w", "--workdir", metavar="DIR", help="Directory inside to start in.")
@configured
@click.option(
    "--events",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Append every event to a file, one JSON object a line.",
)
@click.option("-t", "--tty", is_flag=True, help="Give the command your terminal.")
@click.option("--json", is_flag=True, help="Write one JSON document with streams and outcome.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Say every phase and its duration.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def command(**options: Any) -> None:
    """Run COMMAND, or ask an agent, in an isolated, disposable instance.

    Its standard streams and exit code are yours, untouched. When it has ended, or when you or the
    machine end it, the instance is gone. The current directory is seen read-only at /workspace,
    unless a mount or an upload goes there, or it is your home or the root of the file system.

    With --agent, or without a COMMAND where an agent is configured, the prompt is standard input or
    TEXT, and the answer comes on standard output. The session's id is said on standard error.

    Exit codes: the command's own; 124 deadline; 125 claw or the runtime failed; 126 not executable;
    127 not found; 128+n signal; 2 usage.
    """
    chosen = Options(**options)
    end_with(_ask(chosen) if chosen.asks else _run(chosen))


async def _ask(options: Options) -> int:
    """Ask an agent."""
    from claw_core.cli import agent

    return await agent.serve(options) if options.stdio else await agent.ask(options)


async def _run(options: Options) -> int:
    from claw_core.capture import Capture

    options.check()
    stdout: Capture | Writer = Capture(JSON_LIMIT) if options.json else Writer(1)
    stderr: Capture | Writer = Capture(JSON_LIMIT) if options.json else Writer(2)

    async def work(router: Router, outcome: Outcome) -> None:
        asked = options.asked()
        async with router.session(
            group=options.group, workspace=options.workspace(), **asked
        ) as session:
            outcome.record = session.record
            for source, target in options.uploads:
                await session.upload(Path(source), target)
            run = session.run
            if options.tty:
                from claw_core.cli import terminal

                run = functools.partial(terminal.run, session, outcome.progress)
            await run(
                options.command,
                stdin=Reader(0).chunks(),
                stdout=stdout,
                stderr=stderr,
                timeout=options.timeout,
                idle_timeout=options.idle_timeout,
            )
            for source, target in options.downloads:
                await session.download(source, Path(target))

    config = load(options.config, options.root, for_groups=options.group is not None)
    outcome = await performed(options, config, work)
    if isinstance(stdout, Capture) and isinstance(stderr, Capture):
        document(outcome.to_json() | text("stdout", stdout.data) | text("stderr", stderr.data))
    return outcome.code()


@attrs.define(eq=False)
class Outcome:
    """How a run went.

    Attributes:
        progress: the line that says what is going on.
        record: of the session, as soon as there is one.
        known: what failed on claw's side.
        broken: whether whoever read the output is gone.
    """

    progress: ProgressLine
    record: Record | None = None
    known: list[ClawError] = attrs.field(factory=list)
    broken: bool = False

    def code(self) -> int:
        """The command's own code, unless claw failed before or after it; see `claw run --help`."""
        if self.broken:
            return 128 + signal.SIGPIPE
        own = self.record.exit.code if self.record and self.record.exit else 0
        if not self.known or (own and all(isinstance(one, TeardownFailed) for one in self.known)):
            return own
        return exit_code(self.known)

    def to_json(self) -> dict[str, Any]:
        """The record, with the messages of what failed."""
        shown = self.record.to_json() if self.record else {"exit": None, "teardown": None}
        return shown | {"error": "\n".join(str(failure) for failure in self.known) or None}


async def performed(
    options: Options, config: Config, work: Callable[[Router, Outcome], Awaitable[None]]
) -> Outcome:
    """Do something with a router, show its progress, and say what failed.

    Args:
        options: what is to be said.
        config: what is configured.
        work: what is to be done; it fills in the outcome.
    """
    from claw_core.router import Router

    outcome = Outcome(ProgressLine(quiet=options.quiet, verbose=options.verbose))
    log, told = _events(options.events, outcome.progress)
    try:
        async with Router.open(config=config, listener=told) as router:
            await work(router, outcome)
    except BrokenPipeError:
        outcome.broken = True  # whoever read our output is gone, as with `claw run ... | head -1`
    except ClawError as error:
        outcome.known = [error]
    except ExceptionGroup as error:
        outcome.known = list(failures(error))
        if not outcome.known:
            raise
    finally:
        outcome.progress.close()
        if log is not None and (lost := await log.close()):
            say(lost)
    for failure in outcome.known:
        say(str(failure))
    if outcome.record is not None and outcome.record.exit and outcome.record.exit.reason:
        say(outcome.record.exit.reason)
    return outcome


def _events(path: Path | None, progress: Listener) -> tuple[EventLog | None, Listener]:
    """Who is told about the run: the progress line, and the log if there is one."""
    if path is None:
        return None, progress
    from claw_core.eventlog import EventLog

    log = EventLog(path)

    def told(event: Event) -> None:
        progress(event)
        log(event)

    return log, told


def text(name: str, data: bytearray) -> dict[str, str]:
    """A stream as text where it is text, else in base64 under another key."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}
