"""`claw reap`: tear down what dead owners left behind, or show what that would be."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from claw_core import units
from claw_core.cli.render import Parsed, document, reporting, table

DEADLINE = "60s"


@click.command("reap")
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
def command(dry_run: bool, adopt: bool, deadline: float, json: bool) -> None:
    """Tear down the instances of dead owners. Living ones are never touched.

    Exit code 125 when something could not be torn down verifiably.
    """
    with reporting():
        rows = asyncio.run(_rows(dry_run, adopt, deadline))
    if json:
        document(rows)
    elif not rows:
        click.echo("nothing to reap")
    else:
        table(
            [("INSTANCE", "RUNTIME", "RESULT", "REMARK")]
            + [(row["name"], row["runtime"], row["result"], row["error"] or "") for row in rows]
        )
    if (
        any(row["result"] in {"quarantined", "limbo", "busy", "unreadable"} for row in rows)
        and not dry_run
    ):
        raise SystemExit(125)


async def _rows(dry_run: bool, adopt: bool, deadline: float) -> list[dict[str, Any]]:
    from claw_core.ledger import Ledger, default_state_directory
    from claw_core.reaper import Reaper
    from claw_core.registry import Registry
    from claw_core.tasks import in_thread

    ledger = await in_thread(Ledger.open, default_state_directory())
    registry = Registry()
    # Where the ledger is lost, only the runtimes themselves know what they still have.
    backends: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in registry.names()]
    reaper = Reaper(ledger, registry.resolve, backends)
    outcomes = await (reaper.plan() if dry_run else reaper.reap(deadline, adopt=adopt))
    return [
        {
            "name": outcome.name,
            "runtime": outcome.runtime or "?",
            "result": outcome.result,
            "error": outcome.error,
        }
        for outcome in outcomes
    ]
