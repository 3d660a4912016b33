"""`claw trust`: see what a group's own file asks for beyond what was accepted, and accept it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from claw_core.cli.configuration import configured, load
from claw_core.cli.render import document, harmless, reporting
from claw_core.config.config import Config
from claw_core.errors import ConfigError
from claw_core.ledger import Ledger, default_state_directory
from claw_core.trust import TrustStore


@click.command("trust")
@configured
@click.option("--yes", is_flag=True, help="Accept without asking.")
@click.option("--json", is_flag=True, help="Write JSON; accepts only with --yes.")
@click.argument("group")
def command(config: Path | None, root: Path | None, yes: bool, json: bool, group: str) -> None:
    """Show what GROUP's config.json asks for beyond what was accepted, and accept it.

    An agent can write its own group's folder. So what its config.json asked for when it was first
    used is remembered outside of it, and asking for more later needs your word.
    """
    with reporting():
        accepted, changes = _trust(load(config, root), group, yes=yes, json=json)
    if json:
        document({"group": group, "pending": changes, "accepted": accepted})
    sys.exit(not accepted)


def _trust(config: Config, group: str, *, yes: bool, json: bool) -> tuple[bool, list[str]]:
    found = config.group(group)
    ledger = Ledger.open(default_state_directory())
    store = TrustStore(ledger.state, ledger.install, config.root or Path())
    changes, used = store.changes(found), store.pending(found) is not None
    if not json:
        click.echo(_heading(group, changes, used=used))
        for change in changes:
            click.echo(f"  {harmless(change)}")
    if used and not changes:
        return True, []
    if not yes and (json or not sys.stdin.isatty()):
        if json:
            return False, changes
        raise ConfigError("nobody is there to ask", remedy="look at the change, then add --yes")
    if yes or click.confirm("Accept this?"):
        store.accept(found)  # exactly what was shown: the file is not read again
        return True, changes
    return False, changes


def _heading(group: str, changes: list[str], *, used: bool) -> str:
    file = f"groups/{group}/config.json"
    if not used:
        what = "it asks for:" if changes else "it asks for nothing special."
        return f"{file} was never used, and its first use would accept it; {what}"
    if not changes:
        return f"{file} asks for nothing that was not accepted."
    return f"{file} asks for more than was accepted:"
