"""The address of a guest: what the DHCP server gave to exactly this network card.

Tart's own `ip` looks once a second and sleeps after every miss, so the leases are read here, where
they can be; `tart ip` is what is left where they cannot.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import time
from pathlib import Path
from typing import Final

import attrs

from claw_core.errors import RuntimeFault
from claw_core.host import Host
from claw_core.tasks import in_thread, persist, stop
from claw_runtime_tart.cli import Tart
from claw_runtime_tart.vms import Directory

PAUSE: Final = 0.05
"""Seconds between two looks at the leases: another program writes them, which is no event here."""
LATE: Final = 10.0
"""Seconds after which Tart is asked as well: a guest may have told the server another identity."""
WAIT: Final = 3
"""Seconds that one `tart ip` waits, and may outlive us; it looks once in every one of them."""
STEPS: Final = (0.0, 0.25, 0.5, 0.75)
"""Seconds after which it is begun where it is all that there is, so that it does not look late."""
_ENTRY: Final = re.compile(r"\{(.*?)\}", re.DOTALL)
_FIELD: Final = re.compile(r"^\s*(\w+)=(.*?)\s*$", re.MULTILINE)


@attrs.define(eq=False)
class Address:
    """Finds the address of one guest, again whenever it may have changed."""

    tart: Tart
    host: Host
    name: str
    leases: Path
    _turn: int = -1

    async def find(self) -> str:
        """Wait for the address; the caller sets the deadline, and cancels."""
        self._turn += 1
        config = await in_thread(Directory(self.tart.home).config, self.name)
        dhcp = (LATE,) if await in_thread(os.access, self.leases, os.R_OK) else STEPS
        # Linux guests often tell the DHCP server something else than their card's address.
        agent = 0.0 if config.get("os") == "linux" else LATE
        asked = (
            self._look(),
            *(self._ask("dhcp", late) for late in dhcp),
            self._ask("agent", agent),
        )
        tasks = [asyncio.create_task(one) for one in asked]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            await persist(stop(tasks))

    async def _look(self) -> str:
        while (found := await in_thread(self._leased)) is None:  # noqa: ASYNC110 - of another program
            await asyncio.sleep(PAUSE)
        return found

    def _leased(self) -> str | None:
        # Tart changes the address of the card when another machine that runs has the same.
        mac = Directory(self.tart.home).config(self.name).get("macAddress")
        found = leased(self.leases, str(mac))
        return found[self._turn % len(found)] if found else None

    async def _ask(self, resolver: str, late: float) -> str:
        await asyncio.sleep(late)
        while (found := await self._asked(resolver)) is None:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.5)
        return found

    async def _asked(self, resolver: str) -> str | None:
        try:
            done = await self.tart.call(
                *("ip", self.name, "--wait", str(WAIT), "--resolver", resolver),
                host=self.host,
                timeout=WAIT + 30.0,
            )
            *_, last = ("", *done.stdout.decode(errors="replace").split())
            return None if done.code else str(ipaddress.IPv4Address(last))
        except (RuntimeFault, ValueError):
            return None


def leased(path: Path, mac: str) -> list[str]:
    """The addresses of the newest leases of a network card, as far as they are not over.

    Usually that is one, and none until it is made. macOS writes the octets of a card without
    leading zeros; a file that is being written may be torn.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    found: dict[int, list[str]] = {}
    for entry in _ENTRY.findall(text):
        fields = dict(_FIELD.findall(entry))
        card = fields.get("hw_address", "").partition(",")[2]
        try:
            until = int(fields.get("lease", "0"), 16)
        except ValueError:
            continue
        if _octets(card) == _octets(mac) and until > time.time() and "ip_address" in fields:
            found.setdefault(until, []).append(fields["ip_address"])
    return found[max(found)] if found else []


def _octets(mac: str) -> tuple[int, ...] | None:
    try:
        return tuple(int(part, 16) for part in mac.split(":"))
    except ValueError:
        return None
