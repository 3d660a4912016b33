"""`claw snapshots`: what runs have left of their disks, on purpose."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import attrs
import click

from claw_core.cli import run
from claw_core.cli.configuration import configured
from claw_core.cli.naming import the_one
from claw_core.cli.render import age, document, reporting, say, size, table
from claw_core.cli.signals import end_with
from claw_core.cli.terminal import SHELL
from claw_core.errors import ClawError

if TYPE_CHECKING:
    from pathlib import Path

    from claw_core.snapshots import Kept, Snapshots


@click.group("snapshots")
def command() -> None:
    """List, open and delete the snapshots that `claw run --snapshot` has left."""


@command.command("list", short_help="List them, the newest first.")
@click.option("--json", is_flag=True, help="Write JSON.")
def listed(json: bool) -> None:
    """List every snapshot of this installation, the newest first."""
    with reporting():
        found = asyncio.run(_found())
    if json:
        document([_row(kept) for kept in found])
        return
    if not found:
        click.echo("no snapshots")
        return
    cells = [("SNAPSHOT", "RUNTIME", "GROUP", "AGE", "SIZE", "EXIT", "REMARK")]
    for kept in found:
        known, row = kept.known, _row(kept)
        cells.append(
            (
                known.name or f"({known.instance})",
                known.runtime,
                known.group or "-",
                age(row["age"]),
                size(known.size),
                "-" if known.exit is None else str(known.exit),
                kept.remark or "",
            )
        )
    table(cells)


@command.command("open", short_help="Look into one.")
@click.argument("name")
@configured
@click.option("--json", is_flag=True, help="Write JSON: what is known of it, and how to enter it.")
def opened(name: str, config: Path | None, root: Path | None, json: bool) -> None:
    """Run a shell in a new instance that starts from the snapshot NAME, which stays as it is.

    Without a terminal it says how to enter it. The current directory is not seen inside.
    """
    with reporting():
        kept = asyncio.run(_the(name))
        if kept.state != "kept":
            raise ClawError(
                f"{name} cannot be opened: {kept.remark}", remedy="see `claw snapshots list`"
            )
    arguments = ["-r", kept.known.runtime, "--image", str(kept.known.name)]
    for option, path in (("--config", config), ("--root", root)):
        arguments += [] if path is None else [option, str(path)]
    if json:
        document(_row(kept) | {"command": ["claw", "run", *arguments, "--"]})
    elif os.isatty(0):
        options = run.options_of(*arguments, "-t", "--", *SHELL)
        end_with(run.run(attrs.evolve(options, bare=True)))
    else:
        click.echo(f"claw run {' '.join(arguments)} -- COMMAND")


@command.command("delete", short_help="Delete some.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--json", is_flag=True, help="Write JSON.")
def deleted(names: tuple[str, ...], json: bool) -> None:
    """Delete snapshots, see that they are absent, and forget what is known of them.

    Exit code 125 when one could not be deleted.
    """
    with reporting():
        rows = asyncio.run(_delete(names))
    if json:
        document(rows)
    for row in rows:
        if row["error"]:
            say(row["error"])
        elif not json:
            click.echo(f"deleted {row['name']}")
    if any(row["error"] for row in rows):
        raise SystemExit(125)


async def _delete(names: tuple[str, ...]) -> list[dict[str, Any]]:
    snapshots = await _snapshots()
    found, _ = await snapshots.find()
    chosen = [_chosen(name, found) for name in names]
    rows = []
    for kept in chosen:
        error = None
        try:
            await snapshots.delete(kept)
        except ClawError as failure:
            error = str(failure)
        rows.append({"name": kept.known.name or kept.known.instance, "error": error})
    return rows


async def _the(name: str) -> Kept:
    return _chosen(name, await _found())


def _chosen(name: str, found: list[Kept]) -> Kept:
    named = [((*_names(kept), kept.known.instance), kept) for kept in found]
    return the_one(name, named, "snapshot", "see `claw snapshots list`")


def _names(kept: Kept) -> tuple[str, str]:
    return kept.known.name or kept.known.instance, kept.known.instance.rpartition("-")[2]


async def _found() -> list[Kept]:
    found, problems = await (await _snapshots()).find()
    for problem in problems:
        say(problem)
    return found


async def _snapshots() -> Snapshots:
    from claw_core.ledger import Ledger, default_state_directory
    from claw_core.registry import Registry
    from claw_core.snapshots import Snapshots
    from claw_core.tasks import in_thread

    ledger = await in_thread(Ledger.open, default_state_directory())
    registry = Registry()
    # What is noted nowhere only the runtimes themselves know of.
    return Snapshots(ledger, registry.resolve, [(name, {}) for name in registry.names()])


def _row(kept: Kept) -> dict[str, Any]:
    known = kept.known
    passed = max(0.0, time.time() - known.taken) if known.taken else None
    return known.to_json() | {"state": kept.state, "age": passed, "remark": kept.remark}
