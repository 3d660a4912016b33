"""One request to an engine, and its answer; or the raw stream that a hijacked request becomes.

HTTP is h11's; the socket is ours and not a transport of asyncio, because the socket of the
dead-man's switch must die with this process even where a forked child lives on (`lifeline`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import attrs
import h11

from claw_core import lifeline
from claw_runtime_docker.endpoint import Endpoint
from claw_runtime_docker.errors import EngineBroken, EngineUnavailable

CHUNK: Final = 1 << 18
"""Bytes that are read at once."""

_NO_ENGINE: Final = "start the engine, or name it with the setting host or DOCKER_HOST"
_REMEDIES: Final = {
    errno.EACCES: "become a member of the socket's group (usually `docker`), or use a rootless "
    "engine of your own",
    errno.EPERM: "become a member of the socket's group (usually `docker`)",
}


@attrs.frozen
class Head:
    """Status and headers of an answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]


@attrs.define(eq=False)
class Connection:
    """A connection that carries one request. Close it, whatever happens."""

    endpoint: Endpoint
    _socket: socket.socket
    _http: h11.Connection = attrs.field(factory=lambda: h11.Connection(h11.CLIENT))
    _asked: str = "nothing"
    _trailing: bytes = b""

    @classmethod
    async def open(cls, endpoint: Endpoint) -> Connection:
        """Connect.

        Raises:
            EngineUnavailable: nobody listens there, or we may not connect.
        """
        loop = asyncio.get_running_loop()
        try:
            family: int = socket.AF_UNIX
            address: Any = endpoint.address
            if endpoint.scheme == "tcp":
                found = await loop.getaddrinfo(
                    endpoint.address, endpoint.port, type=socket.SOCK_STREAM
                )
                family, _, _, _, address = found[0]
            ours = _kept(family)
            try:
                if endpoint.scheme == "tcp":
                    ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await loop.sock_connect(ours, address)
            except BaseException:
                _close(ours)
                raise
        except OSError as error:
            known = error.errno if error.errno in errno.errorcode else None
            reason = str(error) if known is None else os.strerror(known)
            raise EngineUnavailable(
                f"no engine answers at {endpoint} ({endpoint.origin}): {reason}",
                remedy=_REMEDIES.get(error.errno or 0, _NO_ENGINE),
            ) from error
        return cls(endpoint, ours)

    async def request(
        self,
        method: str,
        target: str,
        body: bytes | AsyncIterator[bytes] = b"",
        *,
        kind: str = "application/json",
        upgrade: bool = False,
    ) -> Head:
        """Send a request, and return the head of its answer.

        Args:
            method: of HTTP.
            target: path and query.
            body: bytes, or chunks that are sent as they come.
            kind: media type of the body.
            upgrade: ask for a raw stream; the answer is then 101 (or 200 from some engines).

        Raises:
            EngineBroken: the connection ended, or the answer is not HTTP.
        """
        self._asked = f"{method} {target.partition('?')[0]}"
        headers = [("Host", "claw"), ("User-Agent", "claw")]
        if isinstance(body, bytes):
            headers.append(("Content-Length", str(len(body))))
        else:
            headers.append(("Transfer-Encoding", "chunked"))
        if body or not isinstance(body, bytes):
            headers.append(("Content-Type", kind))
        if upgrade:
            headers += [("Connection", "Upgrade"), ("Upgrade", "tcp")]
        await self._send(h11.Request(method=method, target=target, headers=headers))
        if not isinstance(body, bytes):
            async for chunk in body:
                await self._send(h11.Data(data=chunk))
        elif body:
            await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())
        event = await self._event()
        while isinstance(event, h11.InformationalResponse) and event.status_code != 101:
            event = await self._event()
        if not isinstance(event, h11.Response | h11.InformationalResponse):
            raise self._broken("closed the connection without an answer")
        if event.status_code == 101:
            await self._event()  # PAUSED: what follows is not HTTP any more
            self._trailing = self._http.trailing_data[0]
        return Head(
            event.status_code,
            {name.decode().lower(): value.decode("latin-1") for name, value in event.headers},
        )

    async def read(self) -> bytes:
        """Return some bytes of the answer's body or of the raw stream; empty at its end.

        Raises:
            EngineBroken: it ended in the middle.
        """
        if self._http.their_state is h11.SWITCHED_PROTOCOL:
            data, self._trailing = self._trailing, b""
            return data or await self._receive()
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def body(self, limit: int = 64 << 20) -> bytes:
        """Return the whole body.

        Raises:
            EngineBroken: it is longer than `limit` bytes, or ended in the middle.
        """
        kept = bytearray()
        while data := await self.read():
            kept += data
            if len(kept) > limit:
                raise self._broken(f"sent more than {limit} bytes")
        return bytes(kept)

    async def json(self) -> Any:
        """Return the body's JSON value, or None for an empty body.

        Raises:
            EngineBroken: it is no JSON.
        """
        data = await self.body()
        try:
            return json.loads(data) if data.strip() else None
        except ValueError as error:
            raise self._broken("sent what is no JSON") from error

    async def write(self, data: bytes) -> None:
        """Send bytes on the raw stream; returns when the system has taken them.

        Raises:
            OSError: the other side is gone.
        """
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    def half_close(self) -> None:
        """Say on the raw stream that nothing more will be sent."""
        with contextlib.suppress(OSError):  # already gone: the reader will see it
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection; may be called again."""
        _close(self._socket)

    async def _send(self, event: h11.Event) -> None:
        try:
            data = self._http.send(event)
            if data:
                await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except OSError:
            return  # an engine may answer and close before it has read everything
        except h11.LocalProtocolError as error:
            raise self._broken(f"ended the exchange early ({error})") from error

    async def _event(self) -> Any:
        """The next event of HTTP."""
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._receive())
        except h11.RemoteProtocolError as error:
            raise self._broken(f"sent no valid answer ({error})") from error
        return event

    async def _receive(self) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(self._socket, CHUNK)
        except ConnectionResetError:
            return b""
        except OSError as error:
            raise self._broken(f"is gone ({error.strerror})") from error

    def _broken(self, what: str) -> EngineBroken:
        return EngineBroken(
            f"the engine at {self.endpoint} {what}, asked for {self._asked}",
            remedy="see whether the engine runs, and its log",
        )


def _kept(family: int) -> socket.socket:
    """Open a socket that a forked child does not keep open."""
    number = lifeline.open_kept(lambda: socket.socket(family, socket.SOCK_STREAM).detach())
    ours = socket.socket(fileno=number)
    ours.setblocking(False)
    return ours


def _close(ours: socket.socket) -> None:
    number = ours.detach()
    if number >= 0:
        lifeline.close(number)
