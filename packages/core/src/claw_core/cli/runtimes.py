"""`claw runtimes`: what is installed, and what it offers on this machine."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import click

from claw_core.cli.render import document, reporting, table
from claw_core.errors import ClawError

if TYPE_CHECKING:
    from claw_core.model import Description
    from claw_core.registry import Registry, Row
    from claw_core.relay import Relay


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
    return await asyncio.gather(*(_shown(registry, row) for row in registry.rows()))


async def _shown(registry: Registry, row: Row) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": row.name,
        "from": f"{row.distribution} {row.version}",
        "available": False,
        "version": None,
        "isolation": "-",
        "axes": {},
    }
    try:
        if row.error is not None:
            raise row.error
        description = await _describe(registry.resolve(row.name))
    except ClawError as error:
        return shown | {"reason": error.message, "remedy": error.remedy}
    return shown | {
        "available": description.available,
        "version": description.version,
        "isolation": description.isolation.label if description.available else "-",
        "axes": description.axes.to_json(),
        "reason": description.reason,
        "remedy": description.remedy,
    }


async def _describe(relay: Relay) -> Description:
    """Ask in a thread of its own, so that one that blocks its event loop holds up no other."""
    from claw_core import relay as rooms

    answer: Future[Description] = Future()
    answer.set_running_or_notify_cancel()  # an answer that comes too late finds it as it was

    def ask() -> None:
        try:
            answer.set_result(asyncio.run(relay.describe()))
        except BaseException as error:  # noqa: BLE001 - it is raised where the answer is awaited
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        async with asyncio.timeout(rooms.ANSWER_TIMEOUT + 1):
            return await asyncio.wrap_future(answer)
    except TimeoutError:
        raise relay.silent("describe") from None
