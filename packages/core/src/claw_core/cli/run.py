"""`claw run`: one command, one instance, nothing left behind."""

from __future__ import annotations

import base64
import functools
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import attrs
import click

from claw_core import units
from claw_core.cli.configuration import configured, load
from claw_core.cli.progress import ProgressLine
from claw_core.cli.render import Parsed, document, exit_code, failures, say
from claw_core.cli.signals import end_with
from claw_core.cli.streams import Reader, Writer
from claw_core.errors import ClawError, ConfigError, NotKept, TeardownFailed
from claw_core.keeping import Keeping
from claw_core.model import Mount, Network, Resources, When
from claw_core.request import WORKSPACE

if TYPE_CHECKING:
    from claw_core.eventlog import EventLog
    from claw_core.events import Event, Listener
    from claw_core.runs import Record

JSON_LIMIT = 16 << 20
"""Bytes of each stream that `--json` keeps in its document."""


def _mount(text: str) -> Mount:
    source, target, writable = units.mount(text)
    return Mount(Path(source).absolute(), target, writable=writable, authorised=True)


def _pair(text: str) -> tuple[str, str]:
    left, colon, right = text.partition(":")
    if not (colon and left and right):
        raise ConfigError(f"expected SRC:DST, got {text!r}", remedy="name both paths")
    return left, right


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name:
        raise ConfigError(f"expected NAME=VALUE, got {text!r}", remedy="name the variable")
    if not equals and name not in os.environ:
        raise ConfigError(f"{name} is not set", remedy=f"set {name}, or write {name}=VALUE")
    return name, value if equals else os.environ[name]


def _secret(name: str) -> str:
    if "=" in name:
        raise ConfigError(
            "expected the name of a secret, got an assignment",
            remedy="put the value into the environment: an argument is visible to every process",
        )
    return name


@attrs.frozen
class Options:
    """What the command line asks for."""

    command: tuple[str, ...]
    config: Path | None
    root: Path | None
    events: Path | None
    group: str | None
    runtime: str | None
    image: str | None
    mounts: tuple[Mount, ...]
    uploads: tuple[tuple[str, str], ...]
    downloads: tuple[tuple[str, str], ...]
    variables: tuple[tuple[str, str], ...]
    secrets: tuple[str, ...]
    network: Network | None
    cpus: float | None
    memory: int | None
    processes: int | None
    timeout: float | None
    idle_timeout: float | None
    workdir: str | None
    snapshot: When
    keep: When
    keep_for: float
    tty: bool
    json: bool
    quiet: bool
    verbose: bool
    bare: bool = False
    """Whether the working directory stays out of sight."""

    def check(self) -> None:
        """Refuse early what would otherwise fail after the command has run.

        Raises:
            ConfigError: a path does not exist, a download has no place to go, or there is no
                terminal.
        """
        if self.tty:
            from claw_core.cli import terminal  # most runs have none

            terminal.require(json=self.json)
        for source, _ in self.uploads:
            if not os.path.lexists(source):
                raise ConfigError(
                    f"cannot upload {source!r}: it does not exist", remedy="correct the path"
                )
        for source, target in self.downloads:
            from claw_core import archive  # most runs move no files

            archive.destination(Path(target), source.rstrip("/").rpartition("/")[2])

    def keeping(self) -> Keeping | None:
        """What is to be kept at the end."""
        if self.snapshot == self.keep == "never":
            return None
        return Keeping(self.snapshot, self.keep, self.keep_for)

    def workspace(self) -> Path | None:
        """The working directory, unless an upload goes where it would be seen."""
        if self.bare or any(f"{target}/".startswith(f"{WORKSPACE}/") for _, target in self.uploads):
            return None
        try:
            return Path.cwd()
        except FileNotFoundError:
            return None  # it was deleted under us


@click.command(
    "run", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False}
)
@click.option(
    "-g",
    "--group",
    metavar="GROUP",
    help="Run for a group: as it is configured, its folder writable at /workspace/group.",
)
@click.option("-r", "--runtime", metavar="NAME", help="Runtime to use; else the first that fits.")
@click.option("--image", metavar="IMAGE", help="What the runtime starts from.")
@click.option(
    "--mount",
    "mounts",
    multiple=True,
    metavar="SRC:DST[:rw]",
    type=Parsed("mount", _mount),
    help="Show a host path inside; read-only unless `:rw`.",
)
@click.option(
    "--upload",
    "uploads",
    multiple=True,
    metavar="SRC:DST",
    type=Parsed("upload", _pair),
    help="Copy a host path in before the command runs.",
)
@click.option(
    "--download",
    "downloads",
    multiple=True,
    metavar="SRC:DST",
    type=Parsed("download", _pair),
    help="Copy a path out after the command has run.",
)
@click.option(
    "-e",
    "--env",
    "variables",
    multiple=True,
    metavar="NAME[=VALUE]",
    type=Parsed("variable", _variable),
    help="Set a variable for the command.",
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME",
    type=Parsed("secret", _secret),
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
@click.option(
    "--snapshot",
    type=click.Choice(get_args(When)),
    default="never",
    help="Keep the disk as a snapshot before the instance is torn down; see `claw snapshots`.",
)
@click.option(
    "--keep",
    type=click.Choice(get_args(When)),
    default="never",
    help="Stop the instance and keep it, in place of its teardown; see `claw ps`.",
)
@click.option(
    "--keep-for",
    type=Parsed("duration", units.duration),
    metavar="TIME",
    default="24h",
    help="For how long it is kept (24h).",
)
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
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def command(**options: Any) -> None:
    """Run COMMAND in an isolated, disposable instance.

    Its standard streams and exit code are yours, untouched. When it has ended, or when you or the
    machine end it, the instance is gone. The current directory is seen read-only at /workspace,
    unless a mount or an upload goes there, or it is your home or the root of the file system.

    Exit codes: the command's own; 124 deadline; 125 claw or the runtime failed; 126 not executable;
    127 not found; 128+n signal; 2 usage.
    """
    end_with(run(Options(**options)))


def options_of(*arguments: str) -> Options:
    """What these arguments of `claw run` ask for."""
    return Options(**command.make_context("run", [*arguments]).params)


async def run(options: Options) -> int:
    """Do what is asked for, and return the exit code."""
    from claw_core.capture import Capture
    from claw_core.router import Router

    options.check()
    config = load(options.config, options.root, for_groups=options.group is not None)
    progress = ProgressLine(quiet=options.quiet, verbose=options.verbose)
    log, told = _events(options.events, progress)
    stdout: Capture | Writer = Capture(JSON_LIMIT) if options.json else Writer(1)
    stderr: Capture | Writer = Capture(JSON_LIMIT) if options.json else Writer(2)
    record: Record | None = None
    known: list[ClawError] = []
    try:
        async with (
            Router.open(config=config, listener=told) as router,
            router.session(
                group=options.group,
                runtime=options.runtime,
                image=options.image,
                mounts=options.mounts,
                workspace=options.workspace(),
                env=dict(options.variables),
                secrets=options.secrets,
                network=options.network,
                resources=Resources(options.cpus, options.memory, options.processes),
                workdir=options.workdir,
                keeping=options.keeping(),
            ) as session,
        ):
            record = session.record
            for source, target in options.uploads:
                await session.upload(Path(source), target)
            run = session.run
            if options.tty:
                from claw_core.cli import terminal

                run = functools.partial(terminal.run, session, progress)
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
    except BrokenPipeError:
        # Whoever read our output is gone, as with `claw run ... | head -1`.
        return 128 + signal.SIGPIPE
    except ClawError as error:
        known = [error]
    except ExceptionGroup as error:
        known = list(failures(error))
        if not known:
            raise
    finally:
        progress.close()
        if log is not None and (lost := await log.close()):
            say(lost)
    for failure in known:
        say(str(failure))
    if record is not None and record.exit is not None and record.exit.reason:
        say(record.exit.reason)
    if isinstance(stdout, Capture) and isinstance(stderr, Capture):
        shown: dict[str, Any] = record.to_json() if record else {"exit": None, "teardown": None}
        shown["error"] = "\n".join(str(failure) for failure in known) or None
        document(shown | _text("stdout", stdout.data) | _text("stderr", stderr.data))
    return _code(record, known)


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


def _code(record: Record | None, known: Sequence[ClawError]) -> int:
    """The command's own code, unless claw failed before or after it; see the help of `claw run`."""
    own = record.exit.code if record and record.exit else 0
    at_the_end = (NotKept, TeardownFailed)
    if not known or (own and all(isinstance(failure, at_the_end) for failure in known)):
        return own
    return exit_code(known)


def _text(name: str, data: bytearray) -> dict[str, str]:
    """A stream as text where it is text, else in base64 under another key."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}
