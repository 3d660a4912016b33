"""Calls to an engine's API: each with a deadline, in a version that both sides speak."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import attrs

from claw_runtime_docker.connection import Connection, Head
from claw_runtime_docker.endpoint import Endpoint
from claw_runtime_docker.errors import EngineBroken, EngineError, EngineUnavailable

OLDEST: Final = (1, 40)
"""Version of the API that is needed: Docker 19.03."""
NEWEST: Final = (1, 51)
"""Latest version of the API that is asked for: Docker 28."""
TIMEOUT: Final = 30.0
"""Seconds that the engine has for an answer."""

Query = Mapping[str, str | int]

_VERSION_REMEDY: Final = "upgrade claw-runtime-docker, or use an engine between Docker 19.03 and 29"


@attrs.define(eq=False)
class Engine:
    """An engine at an endpoint; no connection is open while none of its calls runs.

    Args:
        endpoint: where it is.
        timeout: seconds that it has for an answer, where a call does not say otherwise.
    """

    endpoint: Endpoint
    timeout: float = TIMEOUT
    podman: bool = attrs.field(init=False, default=False)
    _version: str | None = attrs.field(init=False, default=None)
    _info: Mapping[str, Any] | None = attrs.field(init=False, default=None)

    async def version(self) -> str:
        """Return the version of the API that is spoken, for instance `1.41`.

        Raises:
            EngineUnavailable: nobody answers, or the engine is too old.
        """
        if self._version is None:
            async with self._exchange("GET", "/_ping", None, self.timeout) as (head, connection):
                await connection.body()
            theirs = head.headers.get("api-version", "")
            if head.status != 200 or not theirs:
                raise EngineUnavailable(
                    f"what answers at {self.endpoint} is no engine (status {head.status})",
                    remedy="correct the setting host, or DOCKER_HOST",
                )
            self.podman = "libpod-api-version" in head.headers
            self._version = _agreed(theirs, self.endpoint)
        return self._version

    async def speaks(self, major: int, minor: int) -> bool:
        """Whether the version that is spoken is at least this one."""
        return tuple(int(part) for part in (await self.version()).split(".")) >= (major, minor)

    async def info(self, *, known: bool = False) -> Mapping[str, Any]:
        """Return what the engine says about itself.

        Args:
            known: the answer that was given last is good enough.
        """
        if not known or self._info is None:
            self._info = await self.call("GET", "/info") or {}
        return self._info

    async def call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """Make a call, and return the JSON value of its answer; None where it is empty.

        Args:
            method: of HTTP.
            path: below the version.
            query: parameters.
            body: a JSON value, an async iterator of a tar stream, or None.
            timeout: seconds for the whole call; None is the engine's `timeout`.

        Raises:
            EngineError: the engine says no.
            EngineUnavailable: it cannot be reached, so it did nothing.
            EngineBroken: it does not answer in time or as it should; what it did is unknown.
        """
        async with self.stream(method, path, query, body, timeout=timeout) as connection:
            return await connection.json()

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        *,
        timeout: float | None = None,
    ) -> AsyncIterator[Connection]:
        """Make a call whose answer is read inside the block; arguments and errors as in `call`."""
        target = await self._target(path, query)
        limit = self.timeout if timeout is None else timeout
        async with self._exchange(method, target, body, limit) as (head, connection):
            if head.status >= 300:
                raise await _refusal(head, connection, f"{method} {path}")
            yield connection

    async def hijack(self, path: str, query: Query | None = None, body: Any = None) -> Connection:
        """Make a call that becomes a raw stream, and return it; whoever calls closes it.

        Raises:
            EngineError: as in `call`, like the other errors.
        """
        target = await self._target(path, query)
        async with contextlib.AsyncExitStack() as stack:
            async with _deadline(self.timeout, f"POST {path}"):
                connection = await Connection.open(self.endpoint)
                stack.callback(connection.close)
                data = b"" if body is None else json.dumps(body).encode()
                head = await connection.request("POST", target, data, upgrade=True)
                if head.status not in {101, 200}:  # the second from engines that do not upgrade
                    raise await _refusal(head, connection, f"POST {path}")
            stack.pop_all()
        return connection

    async def _target(self, path: str, query: Query | None) -> str:
        version = await self.version()
        return f"/v{version}{path}" + (f"?{urlencode(query)}" if query else "")

    @contextlib.asynccontextmanager
    async def _exchange(
        self, method: str, target: str, body: Any, timeout: float
    ) -> AsyncIterator[tuple[Head, Connection]]:
        async with _deadline(timeout, f"{method} {target.partition('?')[0]}"):
            connection = await Connection.open(self.endpoint)
            try:
                if isinstance(body, AsyncIterator):
                    head = await connection.request(method, target, body, kind="application/x-tar")
                else:
                    data = b"" if body is None else json.dumps(body).encode()
                    head = await connection.request(method, target, data)
                yield head, connection
            finally:
                connection.close()


@contextlib.asynccontextmanager
async def _deadline(seconds: float, asked: str) -> AsyncIterator[None]:
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            yield
    except TimeoutError:
        if not timer.expired():
            raise
        raise EngineBroken(
            f"the engine did not answer {asked} within {seconds:g} s",
            remedy="see whether the engine hangs, and its log",
        ) from None


async def _refusal(head: Head, connection: Connection, asked: str) -> EngineError:
    data = await connection.body(1 << 20)
    try:
        value = json.loads(data)
        said = str(value["message"])
    except (ValueError, KeyError, TypeError):
        said = data[:500].decode(errors="replace").strip() or "no reason given"
    versioned = "client version" in said and ("too old" in said or "too new" in said)
    return EngineError(head.status, said, asked, _VERSION_REMEDY if versioned else None)


def _agreed(theirs: str, endpoint: Endpoint) -> str:
    """The latest version that both sides speak."""
    major, _, minor = theirs.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise EngineUnavailable(
            f"the engine at {endpoint} names no version of its API that can be read ({theirs!r})",
            remedy=_VERSION_REMEDY,
        )
    latest = min((int(major), int(minor)), NEWEST)
    if latest < OLDEST:
        raise EngineUnavailable(
            f"the engine at {endpoint} is too old: its API is {theirs}, and 1.40 is needed",
            remedy="upgrade the engine: Docker 19.03 or later",
        )
    return f"{latest[0]}.{latest[1]}"
