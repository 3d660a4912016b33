"""`claw explain`: what would run for a group, why, and why nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from claw_core.cli.configuration import configured, load
from claw_core.cli.render import document, reporting, table

if TYPE_CHECKING:
    from claw_core.explanation import Explanation


@click.command("explain")
@configured
@click.option("-r", "--runtime", metavar="NAME", help="As if this runtime were asked for.")
@click.option("--json", is_flag=True, help="Write JSON.")
@click.argument("group", required=False)
def command(
    config: Path | None, root: Path | None, runtime: str | None, json: bool, group: str | None
) -> None:
    """Say what would run for GROUP, or without a group: nothing is started.

    Shows the runtime and what it gives, every setting with its origin, each runtime that was asked
    and refused with the remedy, and whether the group's file waits for `claw trust`.
    """
    with reporting():
        found = asyncio.run(_explain(config, root, group, runtime))
    if json:
        document(found.to_json())
        return
    click.echo(found.sentence())
    for note in found.notes():
        click.echo(f"  {note}")
    click.echo()
    table([("SETTING", "VALUE", "FROM"), *found.rows()])
    if found.candidates:
        click.echo()
        rows = [(one.runtime, one.refusal.reason, one.refusal.remedy) for one in found.candidates]
        table([("NOT TAKEN", "BECAUSE", "WHAT TO DO"), *rows])


async def _explain(
    config: Path | None, root: Path | None, group: str | None, runtime: str | None
) -> Explanation:
    from claw_core.explanation import explain
    from claw_core.router import Router

    asked: dict[str, Any] = {"runtime": runtime} if runtime else {}
    async with Router.open(config=load(config, root, for_groups=group is not None)) as router:
        return await explain(router, group, **asked)
