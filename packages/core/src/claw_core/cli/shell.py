"""`claw shell`: an interactive shell, in an instance of its own or in one that is kept."""

from __future__ import annotations

from typing import Any

import attrs
import click
from click.core import ParameterSource

from claw_core.cli import run
from claw_core.cli.configuration import load
from claw_core.cli.naming import the_instance
from claw_core.cli.options import Options
from claw_core.cli.progress import ProgressLine
from claw_core.cli.signals import end_with
from claw_core.cli.streams import Reader, Writer
from claw_core.cli.terminal import SHELL
from claw_core.errors import ClawError
from claw_core.keeping import Keeping

_OTHER = ("command", "tty", "json", "agent", "prompt", "session", "stdio")
"""What `claw run` takes and a shell does not."""
_LATER = frozenset(
    [
        *("instance", "variables", "workdir", "timeout", "idle_timeout", "snapshot", "keep"),
        *("keep_for", "config", "root", "quiet", "verbose"),
    ]
)
"""What can be asked for when an instance is there already."""


@click.command("shell", params=[param for param in run.command.params if param.name not in _OTHER])
@click.argument("instance", required=False)
@click.pass_context
def command(context: click.Context, /, instance: str | None, **options: Any) -> None:
    """Run an interactive shell in an isolated, disposable instance.

    It is bash where the instance has it, else sh, and has your terminal. Everything else is as with
    `claw run`.

    With INSTANCE, which `claw ps` shows as `held`, it runs in that, which is kept again afterwards
    (with `--keep never` it is torn down).
    """
    chosen = Options(**options, command=SHELL, tty=True, json=False)
    if instance is None:
        end_with(run.run(chosen))
    for parameter in context.command.params:
        name = str(parameter.name)
        if name not in _LATER and _given(context, name):
            raise click.UsageError(f"{parameter.opts[0]} cannot be changed in {instance}")
    if not _given(context, "keep"):
        chosen = attrs.evolve(chosen, keep="always")
    end_with(_enter(instance, chosen))


def _given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is not ParameterSource.DEFAULT


async def _enter(wanted: str, options: Options) -> int:
    """Run a shell in an instance that is kept."""
    from claw_core.cli import terminal
    from claw_core.router import Router
    from claw_core.tasks import in_thread

    options.check()
    config = load(options.config, options.root, for_groups=False)
    progress = ProgressLine(quiet=options.quiet, verbose=options.verbose)
    try:
        async with Router.open(config=config, listener=progress) as router:
            entry = the_instance(wanted, await in_thread(router.ledger.scan))
            if entry.alive:
                raise ClawError(
                    "somebody has it", instance=entry.name, remedy=f"claw exec -t {entry.name}"
                )
            async with router.reopen(
                entry,
                env=dict(options.variables),
                workdir=options.workdir,
                keeping=Keeping(options.snapshot, options.keep, options.keep_for),
            ) as session:
                ended = await terminal.run(
                    session,
                    progress,
                    SHELL,
                    stdin=Reader(0).chunks(),
                    stdout=Writer(1),
                    stderr=Writer(2),
                    timeout=options.timeout,
                    idle_timeout=options.idle_timeout,
                )
    finally:
        progress.close()
    return ended.code
