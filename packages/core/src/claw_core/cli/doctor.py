"""`claw doctor`: whether what is installed and configured can work here."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import attrs
import click

from claw_core.cli.configuration import configured, load
from claw_core.cli.render import document, reporting, table

if TYPE_CHECKING:
    from claw_core.doctor import Finding


@click.command("doctor")
@configured
@click.option("--json", is_flag=True, help="Write JSON.")
def command(config: Path | None, root: Path | None, json: bool) -> None:
    """Look at the ledger, the warden, every plugin, the configuration and each group's route.

    The exit code is 1 if something that is configured cannot work; what is merely missing is a
    note.
    """
    from claw_core.doctor import examine

    async def collect() -> list[Finding]:
        return [finding async for finding in examine(load(config, root))]

    with reporting():
        findings = asyncio.run(collect())
    tell(findings, json=json)


def tell(findings: Sequence[Finding], *, json: bool) -> NoReturn:
    """Write findings, and exit with 1 if one of them is a failure, else with 0."""
    if json:
        document([attrs.asdict(finding) for finding in findings])
    else:
        rows = [(one.state, one.subject, one.detail, one.remedy or "") for one in findings]
        table([("STATE", "WHAT", "FOUND", "WHAT TO DO"), *rows])
    sys.exit(any(finding.state == "fail" for finding in findings))
