"""From a machine that boots to a connection that takes commands, as soon as there can be one.

One attempt at a time: parallel ones made a slow guest slower. A refused connection is tried again
after 10 to 50 milliseconds; a handshake has little time at first, since some servers accept long
before they answer, and more with every attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import asyncssh  # noqa: TID253 - imported while the machine boots
import attrs

from claw_core.errors import RuntimeFault
from claw_core.tasks import in_thread
from claw_runtime_tart.ssh import Connection

PAUSES: Final = (0.01, 0.05)
"""Seconds between two attempts, at first and at last."""
PROBE: Final = 0.1
"""Seconds that a connection may take: guests are on this machine."""
HANDSHAKES: Final = (0.5, 15.0)
"""Seconds that a handshake may take, at first and at last."""
LOOK_AGAIN: Final = 2.0
"""Seconds of vain attempts until the address is looked up again: it may have changed."""
UNREACHABLE: Final = 3.0
"""Seconds for which there may be no route to a guest that has an address."""
KEEPALIVE: Final = {"keepalive_interval": 5.0, "keepalive_count_max": 3}


class NoRoute(RuntimeFault):
    """The system forbids this process to reach the guest's network."""


@attrs.frozen
class Credentials:
    """Who a guest is, and who we are.

    Attributes:
        username: in the guest.
        key: file with our private key; None where the image was not prepared.
        password: where there is no key.
        host_key: the guest's public key; None where nobody has seen it before.
    """

    username: str
    key: Path | None
    password: str | None = attrs.field(repr=False)
    host_key: str | None

    def options(self) -> dict[str, Any]:
        """What asyncssh is told; of the user's own SSH nothing is used, agent and keys least."""
        known = asyncssh.import_known_hosts(f"* {self.host_key}") if self.host_key else None
        own: Mapping[str, Any] = (
            {"client_keys": [str(self.key)], "preferred_auth": "publickey"}
            if self.key is not None
            else {
                "client_keys": None,
                "password": self.password,
                "preferred_auth": "password,keyboard-interactive",
            }
        )
        return {
            "username": self.username,
            "known_hosts": known,
            "config": None,
            "agent_path": None,
            "compression_algs": None,
            **KEEPALIVE,
            **own,
        }


async def connect(
    find: Callable[[], Awaitable[str]], port: int, credentials: Credentials
) -> Connection:
    """Connect to a guest; the caller sets the deadline, and cancels.

    Args:
        find: gives the guest's address, as soon as it has one.
        port: of its SSH server.
        credentials: see there.

    Raises:
        NoRoute: there is none, and waiting does not help.
        RuntimeFault: the guest is somebody else, or does not let us in.
    """
    loop = asyncio.get_running_loop()
    options = await in_thread(credentials.options)
    pause, handshake = PAUSES[0], HANDSHAKES[0]
    address = await find()
    since = loop.time()
    vain: float | None = None
    while True:
        try:
            link = await _probe(address, port)
        except OSError as error:
            if error.errno != errno.EHOSTUNREACH:
                vain = None
            elif vain is None:
                vain = loop.time()
            elif loop.time() - vain > UNREACHABLE:
                raise _no_route(address) from error
        else:
            vain = None
            try:
                return await _shake(link, address, port, options, handshake)
            except (OSError, asyncssh.Error) as error:
                _judge(error, credentials)
            handshake = min(HANDSHAKES[1], handshake * 2)
        await asyncio.sleep(pause)
        pause = min(PAUSES[1], pause * 1.5)
        if loop.time() - since > LOOK_AGAIN:
            with contextlib.suppress(TimeoutError):  # then it is what it was
                async with asyncio.timeout(LOOK_AGAIN):
                    address = await find()
            since = loop.time()


async def tunnel(command: tuple[str, ...], credentials: Credentials) -> Connection:
    """Connect to a guest through a command's standard streams; deadline and errors as `connect`."""
    options = await in_thread(credentials.options)
    handshake, pause = HANDSHAKES[0] * 4, PAUSES[0]
    while True:
        try:
            async with asyncio.timeout(handshake):
                return Connection(await asyncssh.connect("guest", proxy_command=command, **options))
        except (OSError, asyncssh.Error) as error:
            _judge(error, credentials)
        handshake = min(HANDSHAKES[1], handshake * 2)
        await asyncio.sleep(pause)
        pause = min(0.5, pause * 2)


async def _probe(address: str, port: int) -> socket.socket:
    """A TCP connection, made without waiting for longer than a guest on this machine takes.

    Raises:
        OSError: there is none.
    """
    link = socket.socket()
    try:
        link.setblocking(False)
        async with asyncio.timeout(PROBE):
            await asyncio.get_running_loop().sock_connect(link, (address, port))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        link.close()
        raise
    return link


async def _shake(
    link: socket.socket, address: str, port: int, options: Mapping[str, Any], seconds: float
) -> Connection:
    try:
        async with asyncio.timeout(seconds):
            made = await asyncssh.connect(address, port, sock=link, **options)
    except BaseException:
        link.close()
        raise
    return Connection(made)


def _judge(error: Exception, credentials: Credentials) -> None:
    """Say what more attempts cannot change; everything else may be a guest that still boots.

    Raises:
        RuntimeFault: the guest is somebody else, or does not let us in.
    """
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        raise RuntimeFault(
            "the guest's host key is not that of its image: this is not our guest, or the image "
            "has changed",
            remedy="prepare the image again: claw image prepare tart --recreate",
        ) from error
    if isinstance(error, asyncssh.PermissionDenied):
        how = "its password" if credentials.key is None else "our key"
        raise RuntimeFault(
            f"the guest does not let {credentials.username} in with {how}",
            remedy="set TART_VM_USERNAME and TART_VM_PASSWORD as the image has them"
            if credentials.key is None
            else "prepare the image again: claw image prepare tart --recreate",
        ) from error


def _no_route(address: str) -> NoRoute:
    private = (
        "allow it in System Settings, Privacy & Security, Local Network; a LaunchAgent cannot ask: "
        "see docs/how-to/use-tart.md"
    )
    return NoRoute(
        f"there is no route to the guest at {address}, although it has that address",
        remedy=private if sys.platform == "darwin" else "see the routes to the guests' network",
    )
