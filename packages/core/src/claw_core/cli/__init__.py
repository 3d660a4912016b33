"""The `claw` command; each subcommand is a module of its own that is imported when it is used."""

from __future__ import annotations

import importlib
from typing import Final

import click

from claw_core._version import __version__

COMMANDS: Final[dict[str, str]] = {
    "run": "Run a command in an isolated, disposable instance.",
    "shell": "Run an interactive shell in a new instance.",
    "exec": "Run one more command in an instance that is running.",
    "explain": "Say what would run for a group, and why.",
    "ps": "List the instances that exist or may exist.",
    "reap": "Tear down what dead owners left behind.",
    "snapshots": "List, open and delete the snapshots that runs have left.",
    "doctor": "See whether what is installed and configured can work here.",
    "trust": "Accept what a group's own file asks for.",
    "image": "Make the image that instances of a runtime start from.",
    "runtimes": "List the installed runtimes and what they offer here.",
}


class LazyGroup(click.Group):
    """A group that knows its commands' one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order in which a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"claw_core.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="claw %(version)s")
def claw() -> None:
    """Run agents in isolated, disposable instances and leave nothing of them behind."""
