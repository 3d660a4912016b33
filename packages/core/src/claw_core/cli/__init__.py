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

PLUGINS: Final = "claw.commands"
"""Entry points of other distributions: the name of a command, and a `click.Command`."""


class LazyGroup(click.Group):
    """A group that knows its commands' one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order in which a user meets them, then those of plugins."""
        return list(_all())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command; a plugin never replaces one of claw's own."""
        if cmd_name not in COMMANDS:
            return _of_plugin(cmd_name)
        command = importlib.import_module(f"claw_core.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from the table above, and what plugins add; none of them is imported."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_all().items()))


def _all() -> dict[str, str]:
    from claw_core.discovery import entry_points

    added = {one.name: f"(of {one.origin.distribution})" for one in entry_points(PLUGINS)}
    return COMMANDS | {name: text for name, text in added.items() if name not in COMMANDS}


def _of_plugin(name: str) -> click.Command | None:
    from claw_core.cli.render import reporting
    from claw_core.errors import PluginError
    from claw_core.registry import load_plugin

    with reporting():
        command = load_plugin(name, PLUGINS)
        if command is not None and not isinstance(command, click.Command):
            raise PluginError(f"the plugin {name} is no command of click", runtime=name)
    return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="claw %(version)s")
def claw() -> None:
    """Run agents in isolated, disposable instances and leave nothing of them behind."""
