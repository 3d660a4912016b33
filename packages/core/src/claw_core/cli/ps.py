"""`claw ps`: what exists or may exist."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import click

from claw_core.cli.render import age, document, reporting, table
from claw_core.entry import held

if TYPE_CHECKING:
    from claw_core.entry import Entry


@click.command("ps")
@click.option("--json", is_flag=True, help="Write JSON.")
def command(json: bool) -> None:
    """List every instance in the ledger, whether its owner lives or not.

    Instances whose owner is dead are handed to a warden, which tears them down.
    """
    with reporting():
        rows = asyncio.run(_rows())
    if json:
        document(rows)
    elif not rows:
        click.echo("no instances")
    else:
        cells = [("INSTANCE", "RUNTIME", "GROUP", "STATE", "OWNER", "AGE", "REMARK")]
        for row in rows:
            owner = f"pid {row['owner']}" if row["alive"] else "-" if row["until"] else "dead"
            cells.append(
                (
                    row["name"],
                    row["runtime"],
                    row["group"] or "-",
                    row["state"],
                    owner,
                    age(row["age"]),
                    row["remark"] or "",
                )
            )
        table(cells)


async def _rows() -> list[dict[str, Any]]:
    from claw_core.router import Router

    async with Router.open() as router:
        return [
            {
                "name": entry.name or entry.path.name,
                "runtime": entry.intent.runtime if entry.intent else "?",
                "group": entry.intent.group if entry.intent else None,
                "state": entry.state,
                "alive": entry.alive,
                "owner": entry.owner,
                "age": max(0.0, time.time() - entry.intent.started) if entry.intent else None,
                "until": (until := _until(entry)),
                "remark": entry.error or entry.detail.get("error") or (until and _kept(until)),
            }
            for entry in await asyncio.to_thread(router.ledger.scan)
        ]


def _until(entry: Entry) -> float | None:
    """The wall-clock time until which an instance is kept on purpose, if it is."""
    if entry.alive or not held(entry.state, entry.detail):
        return None
    return float(entry.detail.get("wall", 0.0))


def _kept(until: float) -> str:
    return f"kept until {time.strftime('%Y-%m-%d %H:%M', time.localtime(until))}"
