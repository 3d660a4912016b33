"""The address of a guest: what the DHCP server gave to exactly this network card.

Tart's own `ip` looks once a second and sleeps after every miss, so the leases are read here, where
they can be; `tart ip` is what is left where they cannot.
"""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Final

import attrs

from claw_core.host import Host
from claw_core.tasks import in_thread, persist, stop
from claw_runtime_tart.cli import Tart

PAUSE: Final = 0.05
"""Seconds between two looks at the leases: another program writes them, which is no event here."""
LATE: Final = 10.0
"""Seconds after which Tart is asked as well: a guest may have told the server another identity."""
WAIT: Final = 15
"""Seconds that one `tart ip` waits before it is asked in another way."""
_ENTRY: Final = re.compile(r"\{(.*?)\}", re.DOTALL)
_FIELD: Final = re.compile(r"^\s*(\w+)=(.*?)\s*$", re.MULTILINE)


@attrs.define(eq=False)
class Address:
    """Finds the address of one guest, again whenever it may have changed.

    Attributes:
        resolvers: how `tart ip` may ask, in turn.
    """

    tart: Tart
    host: Host
    name: str
    mac: str
    leases: Path
    resolvers: tuple[str, ...]
    _turn: int = 0

    async def find(self) -> str:
        """Wait for the address; the caller sets the deadline, and cancels."""
        tasks = [asyncio.create_task(self._look()), asyncio.create_task(self._ask())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            await persist(stop(tasks))

    async def _look(self) -> str:
        while True:
            found = await in_thread(leased, self.leases, self.mac)
            if found is not None:
                return found
            await asyncio.sleep(PAUSE)

    async def _ask(self) -> str:
        if self.leases.exists() and self.resolvers[0] == "dhcp":
            await asyncio.sleep(LATE)
        while True:
            found = await self._asked()
            if found is not None:
                return found
            await asyncio.sleep(PAUSE)

    async def _asked(self) -> str | None:
        resolver = self.resolvers[self._turn % len(self.resolvers)]
        self._turn += 1
        done = await self.tart.call(
            *("ip", self.name, "--wait", str(WAIT), "--resolver", resolver),
            host=self.host,
            timeout=WAIT + 30.0,
        )
        return done.stdout.decode(errors="replace").strip() or None if not done.code else None


def leased(path: Path, mac: str) -> str | None:
    """The address of the newest lease of a network card that is not over.

    macOS writes its octets without leading zeros; a file that is being written may be torn.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return None
    best: tuple[int, str] | None = None
    for entry in _ENTRY.findall(text):
        fields = dict(_FIELD.findall(entry))
        card = fields.get("hw_address", "").partition(",")[2]
        try:
            until = int(fields.get("lease", "0"), 16)
        except ValueError:
            continue
        if _octets(card) == _octets(mac) and until > time.time() and "ip_address" in fields:
            best = max(best or (0, ""), (until, fields["ip_address"]))
    return best[1] if best else None


def _octets(mac: str) -> tuple[int, ...] | None:
    try:
        return tuple(int(part, 16) for part in mac.split(":"))
    except ValueError:
        return None
