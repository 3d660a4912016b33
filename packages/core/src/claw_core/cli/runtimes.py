"""`claw runtimes`: what is installed, and what it offers on this machine."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from claw_core.cli.render import document, reporting, table


@click.command("runtimes")
@click.option("--json", is_flag=True, help="Write JSON.")
def command(json: bool) -> None:
    """List the installed runtimes and what they offer on this machine at best."""
    with reporting():
        rows = asyncio.run(_rows())
    if json:
        document(rows)
        return
    cells = [("RUNTIME", "AVAILABLE", "ISOLATION", "FROM", "REMARK")]
    for row in rows:
        remark = "; ".join(filter(None, (row["reason"], row["remedy"])))
        cells.append(
            (
                row["name"],
                "yes" if row["available"] else "no",
                row["isolation"],
                row["from"],
                remark,
            )
        )
    table(cells)


async def _rows() -> list[dict[str, Any]]:
    from claw_core.registry import Registry

    registry = Registry()
    rows = []
    for row in registry.rows():
        shown: dict[str, Any] = {
            "name": row.name,
            "from": f"{row.distribution} {row.version}",
            "available": False,
            "version": None,
            "isolation": "-",
            "axes": {},
            "reason": row.error and row.error.message,
            "remedy": row.error and row.error.remedy,
        }
        if row.error is None:
            description = await registry.resolve(row.name).describe()
            shown |= {
                "available": description.available,
                "version": description.version,
                "isolation": description.isolation.label if description.available else "-",
                "axes": description.axes.to_json(),
                "reason": description.reason,
                "remedy": description.remedy,
            }
        rows.append(shown)
    return rows
