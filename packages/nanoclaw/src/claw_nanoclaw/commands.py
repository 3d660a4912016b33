"""`claw nanoclaw`: what an owner of a NanoClaw installation does with claw."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from claw_core.cli.configuration import config_option
from claw_core.cli.doctor import tell
from claw_core.cli.render import document, reporting, table

F = TypeVar("F", bound=Callable[..., Any])


def installed(function: F) -> F:
    """Add `--dir` and `--config` to a command."""
    for decorate in (
        config_option,
        click.option(
            "--dir",
            "directory",
            type=click.Path(path_type=Path),
            default=Path(),
            metavar="DIR",
            help="The directory of the NanoClaw installation; else the working one.",
        ),
    ):
        function = decorate(function)
    return function


@click.group("nanoclaw")
def command() -> None:
    """Run the groups of a NanoClaw installation on the runtimes of claw."""


@command.command("shim")
@installed
@click.option(
    "--bin",
    "folder",
    type=click.Path(path_type=Path),
    metavar="BIN",
    help="Where to write them; else DIR/.claw/bin.",
)
def shim_command(directory: Path, config: Path | None, folder: Path | None) -> None:
    """Write a `docker` and a `container` for the PATH of the service.

    What they do not recognise as NanoClaw's goes to the real command behind them on the PATH.
    """
    from claw_nanoclaw.shim import executable
    from claw_nanoclaw.shim.installation import require

    with reporting():
        root = require(directory)
        target = (folder or root / executable.FOLDER).absolute()
        executable.write(root, target, config and config.absolute())
    click.echo(f"wrote {target}/docker and {target}/container")
    click.echo(f"put {target} first on the service's PATH, then see: claw nanoclaw status")


@command.command("status")
@installed
@click.option("--json", is_flag=True, help="Write JSON.")
def status_command(directory: Path, config: Path | None, json: bool) -> None:
    """Say which runtime each group gets, and what stands in the way.

    The exit code is 1 if something cannot work.
    """
    from claw_core.doctor import Finding
    from claw_nanoclaw.shim.installation import require
    from claw_nanoclaw.shim.status import examine

    async def collect() -> list[Finding]:
        return [one async for one in examine(require(directory), config)]

    with reporting():
        findings = asyncio.run(collect())
    tell(findings, json=json)


@command.command("table")
@click.option("--json", is_flag=True, help="Write JSON.")
def table_command(json: bool) -> None:
    """Say which kind of group works on which runtime, and why not."""
    from claw_nanoclaw.shim import support

    rows = list(support.rows())
    if json:
        document([dict(zip(("runtime", "layout", "way", "why"), row, strict=True)) for row in rows])
    else:
        table([("RUNTIME", "GROUP", "RUNS", "WHY"), *rows])
