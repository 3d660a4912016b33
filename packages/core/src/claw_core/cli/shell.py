"""`claw shell`: an interactive shell in an instance of its own."""

from __future__ import annotations

from typing import Any

import click

from claw_core.cli import run
from claw_core.cli.terminal import SHELL

_OTHER = ("command", "tty", "json", "agent", "prompt", "session", "stdio")
"""What `claw run` takes and a shell does not."""


@click.command("shell", params=[param for param in run.command.params if param.name not in _OTHER])
def command(**options: Any) -> None:
    """Run an interactive shell in an isolated, disposable instance.

    It is bash where the instance has it, else sh, and has your terminal. Everything else is as with
    `claw run`.
    """
    assert run.command.callback is not None
    run.command.callback(
        **options,
        command=SHELL,
        tty=True,
        json=False,
        agent=None,
        prompt=None,
        session=None,
        stdio=False,
    )
