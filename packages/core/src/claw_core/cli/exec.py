"""`claw exec`: one more command in an instance that another claw process owns."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any

import attrs
import click

from claw_core.cli import run
from claw_core.cli.naming import the_instance
from claw_core.cli.render import say
from claw_core.cli.signals import end_with
from claw_core.cli.streams import Reader, Writer
from claw_core.errors import ClawError, ConfigError
from claw_core.model import IO, Exit

if TYPE_CHECKING:
    from claw_core.entry import Entry

_SHARED = ("tty", "variables", "workdir", "timeout")
"""What it takes of the options of `claw run`."""


@attrs.frozen
class Options:
    """What the command line asks for."""

    instance: str
    command: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    workdir: str | None
    timeout: float | None
    tty: bool


@click.command(
    "exec",
    context_settings={"allow_interspersed_args": False},
    params=[param for param in run.command.params if param.name in _SHARED],
)
@click.argument("instance")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def command(command: tuple[str, ...], **options: Any) -> None:
    """Run COMMAND in the running INSTANCE of another claw process of yours.

    INSTANCE is a name that `claw ps` shows, or as much of its beginning, or of its last part, as is
    unique. With -t and without COMMAND it is a shell. The command ends with this process, and with
    the instance. Exit codes are those of `claw run`.
    """
    chosen = Options(command=_without_dashes(command), **options)
    end_with(_run(chosen), "still ending the command; once more leaves that to its owner")


def _without_dashes(words: tuple[str, ...]) -> tuple[str, ...]:
    """The command; dashes that separate it stand behind INSTANCE, where the parser has stopped."""
    return words[1:] if words[:1] == ("--",) else words


async def _run(options: Options) -> int:
    if options.tty:
        from claw_core.cli import terminal

        terminal.require()
    elif not options.command:
        raise ConfigError("no command given", remedy="name one, or get a shell with `-t`")
    entry = await _find(options.instance)
    try:
        ended = await _ask(options, entry)
    except BrokenPipeError:
        return 128 + signal.SIGPIPE  # whoever read our output is gone
    except ClawError as error:
        error.at(instance=entry.name)
        raise
    if ended.reason:
        say(ended.reason)
    return ended.code


async def _ask(options: Options, entry: Entry) -> Exit:
    """Ask the owner, and lend it the terminal where that is wanted."""
    from claw_core import remote

    request = remote.Request(
        options.command, dict(options.variables), options.workdir, options.timeout
    )
    io = IO(Reader(0).chunks(), Writer(1), Writer(2))
    with contextlib.ExitStack() as lent:
        if options.tty:
            from claw_core.cli import terminal

            size, control = lent.enter_context(terminal.lent())
            request = attrs.evolve(
                request,
                argv=options.command or terminal.SHELL,
                env=terminal.environment(request.env),
                terminal=size,
            )
            io = attrs.evolve(io, control=control)
        return await remote.run(entry.socket, request, io)


async def _find(wanted: str) -> Entry:
    """The one instance that is meant, and whose owner takes commands.

    Raises:
        ConfigError: there is none, or more than one.
        ClawError: nobody can run anything in it.
    """
    from claw_core.router import Router

    async with Router.open() as router:
        entries = await asyncio.to_thread(router.ledger.scan)
    return _reachable(the_instance(wanted, entries))


def _reachable(entry: Entry) -> Entry:
    if entry.error:
        raise ClawError(entry.error, instance=entry.name)
    if not entry.alive and not entry.reapable:
        raise ClawError(
            "it is kept on purpose: its disk is there, but nothing runs in it",
            instance=entry.name,
            remedy=f"enter it with `claw shell {entry.name}`",
        )
    if not entry.alive:
        raise ClawError(
            "its owner is dead, so it is being torn down",
            instance=entry.name,
            remedy="start another one with `claw run` or `claw shell`",
        )
    if entry.state != "running":
        raise ClawError(
            f"nothing can run in it: its state is {entry.state!r}",
            instance=entry.name,
            remedy="see `claw ps`, and try again once it is `running`",
        )
    return entry
