"""The way to a guest that boots: over its network, or through Tart's guest agent."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from pathlib import Path
from typing import Final

import attrs

from claw_core.errors import ConfigError, RuntimeFault
from claw_core.model import Instance
from claw_core.tasks import in_thread
from claw_runtime_tart import identity
from claw_runtime_tart.address import Address
from claw_runtime_tart.agent import Agent
from claw_runtime_tart.assessing import image_of, restricted
from claw_runtime_tart.cli import PASSWORD, Tart
from claw_runtime_tart.identity import Identity
from claw_runtime_tart.reached import Transport
from claw_runtime_tart.settings import Settings
from claw_runtime_tart.vms import Directory

PUBLISHED: Final = "admin"
"""The password of the images that Cirrus Labs publishes."""
AGENT_PATIENCE: Final = 60.0
"""Seconds that the guest agent has to come where there is no route: often it comes later than SSH,
since it waits for a user to be logged in."""
AGENT_PAUSE: Final = 0.1
"""Seconds until an agent is asked again; Tart itself waits ten for one."""
_PROXY: Final = Path(__file__).with_name("proxy.py")
_INSIDE: Final = (
    "sudo -n true </dev/null >/dev/null 2>&1 && exec sudo -n /usr/sbin/sshd -i; "
    "exec nc 127.0.0.1 {port}"
)
"""A server of our own, which needs no network; or the guest's, where its user may not start one."""


@attrs.define(eq=False)
class Reaching:
    """Finds the way to one guest.

    Attributes:
        missing: what has not come yet.
    """

    settings: Settings
    tart: Tart
    instance: Instance
    missing: str = "the guest got no address"
    _address: Address = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        host, leases = self.instance.host, self.settings.leases
        self._address = Address(self.tart, host, self.instance.name, leases)

    async def reach(self) -> Transport:
        """Return when the guest takes commands; the caller sets the deadline, and cancels.

        Raises:
            RuntimeFault: it never will.
        """
        if self.settings.transport == "agent":
            return await self._agent()
        connecting, known = await asyncio.gather(
            in_thread(importlib.import_module, "claw_runtime_tart.connecting"),
            in_thread(self._known),
        )
        credentials = connecting.Credentials(
            known.username if known else self.settings.username,
            *self._key(known),
            known.host_key if known else None,
        )
        if self.settings.transport == "ssh" and not restricted(self.instance.spec, self.settings):
            port = self.settings.ssh_port
            try:
                reached: Transport = await connecting.connect(self._find, port, credentials)
            except connecting.NoRoute as error:
                self.instance.host.progress(f"{error.message}; trying the guest agent")
                try:
                    async with asyncio.timeout(AGENT_PATIENCE):
                        reached = await connecting.tunnel(self._proxy(), credentials)
                except TimeoutError:
                    raise error from None
        else:
            self.missing = "the guest agent did not answer"
            reached = await connecting.tunnel(self._proxy(), credentials)
        return reached

    async def _find(self) -> str:
        found = await self._address.find()
        self.missing = f"no SSH server answered at {found}"
        return found

    async def _agent(self) -> Transport:
        self.missing = "the guest agent did not answer"
        while True:
            if await self._answers():
                return self._through_agent()
            await asyncio.sleep(AGENT_PAUSE)

    async def _answers(self) -> bool:
        """Whether the guest agent runs commands."""
        try:
            done = await self.tart.call(
                *("exec", self.instance.name, "true"), host=self.instance.host
            )
        except RuntimeFault:
            return False
        return not done.code

    def _through_agent(self) -> Agent:
        return Agent(self.tart, self.instance.host, self.instance.name)

    def _proxy(self) -> tuple[str, ...]:
        names = ",".join(self.tart.without)
        python = (sys.executable, "-I", "-S", str(_PROXY), str(self.tart.home), names)
        inside = ("/bin/sh", "-c", _INSIDE.format(port=self.settings.ssh_port))
        return (*python, self.tart.executable, "exec", "-i", self.instance.name, *inside)

    def _known(self) -> Identity | None:
        image = image_of(self.instance.spec, self.settings)
        path = Directory(self.tart.home).image(image)
        return Identity.load(path) if path is not None else None

    def _key(self, known: Identity | None) -> tuple[Path | None, str | None]:
        """Our key, or else the password."""
        if known is not None:
            path = identity.key_path()
            if not os.access(path, os.R_OK):
                raise RuntimeFault(
                    f"the key that opens the image's guests is not at {path}",
                    remedy="bring it back, or prepare the image again: claw image prepare tart",
                )
            return path, None
        try:
            return None, self.instance.host.secret(PASSWORD)
        except ConfigError:
            return None, PUBLISHED
