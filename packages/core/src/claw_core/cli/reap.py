"""`claw reap`: tear down what dead owners left behind, or show what that would be."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from claw_core import units
from claw_core.cli.naming import the_instance
from claw_core.cli.render import Parsed, document, reporting, table

DEADLINE = "60s"


@click.command("reap")
@click.argument("instances", nargs=-1, metavar="[INSTANCE]...")
@click.option("--dry-run", is_flag=True, help="Show what would be deleted, and why; do nothing.")
@click.option(
    "--adopt",
    is_flag=True,
    help="Also delete instances with this installation's name that no ledger entry claims.",
)
@click.option(
    "--deadline",
    type=Parsed("duration", units.duration),
    default=DEADLINE,
    metavar="TIME",
    show_default=True,
    help="Give up after this time; what is left stays in the ledger.",
)
@click.option("--json", is_flag=True, help="Write JSON.")
def command(
    instances: tuple[str, ...], dry_run: bool, adopt: bool, deadline: float, json: bool
) -> None:
    """Tear down the instances of dead owners. Living ones are never touched.

    With INSTANCE only those that are named, also when they are kept on purpose. It is a name that
    `claw ps` shows, or as much of its beginning, or of its last part, as is unique.

    Exit code 125 when something could not be torn down verifiably.
    """
    if instances and adopt:
        raise click.UsageError("what no entry claims has no name here: leave out INSTANCE")
    with reporting():
        rows = asyncio.run(_rows(instances, dry_run, adopt, deadline))
    if json:
        document(rows)
    elif not rows:
        click.echo("nothing to reap")
    else:
        table(
            [("INSTANCE", "RUNTIME", "RESULT", "REMARK")]
            + [(row["name"], row["runtime"], row["result"], row["error"] or "") for row in rows]
        )
    harmless = {"gone"} if instances else {"gone", "alive", "held"}
    if not dry_run and any(row["result"] not in harmless for row in rows):
        raise SystemExit(125)


async def _rows(
    instances: tuple[str, ...], dry_run: bool, adopt: bool, deadline: float
) -> list[dict[str, Any]]:
    from claw_core.ledger import Ledger, default_state_directory
    from claw_core.reaper import Reaper
    from claw_core.registry import Registry
    from claw_core.tasks import in_thread

    ledger = await in_thread(Ledger.open, default_state_directory())
    registry = Registry()
    # Where the ledger is lost, only the runtimes themselves know what they still have.
    backends: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in registry.names()]
    reaper = Reaper(ledger, registry.resolve, backends)
    entries = await in_thread(ledger.scan) if instances else []
    chosen = {str(the_instance(wanted, entries).name) for wanted in instances}
    outcomes = await (
        reaper.plan(chosen) if dry_run else reaper.reap(deadline, adopt=adopt, chosen=chosen)
    )
    return [
        {
            "name": outcome.name,
            "runtime": outcome.runtime or "?",
            "result": outcome.result,
            "error": outcome.error,
        }
        for outcome in outcomes
    ]
