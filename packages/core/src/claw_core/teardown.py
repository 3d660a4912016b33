"""The one way in which an instance ends: deleted, seen to be absent, and only then forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Final, Literal, Protocol, TypeAlias

import attrs

from claw_core import durable, failpoints
from claw_core.errors import TeardownFailed
from claw_core.ledger import Lease
from claw_core.model import Instance
from claw_core.tasks import in_thread

Result: TypeAlias = Literal["gone", "limbo", "quarantined", "busy", "alive", "held", "unreadable"]

ATTEMPT_TIMEOUT: Final = 60.0
"""Seconds that a backend has for one attempt."""

_PRE_TEARDOWN = failpoints.declare("teardown.pre-delete", "the backend is about to delete it")
_POST_TEARDOWN = failpoints.declare("teardown.post-delete", "the backend says that it is deleted")
_VERIFIED = failpoints.declare("teardown.verified", "the backend's listing does not show it")
_PRE_LIMBO = failpoints.declare("teardown.pre-limbo", "it is absent, and may still come to light")
_POST_LIMBO = failpoints.declare("teardown.post-limbo", "since when it is absent is durable")
_SETTLED = failpoints.declare("teardown.settled", "it was absent for the whole settle time")
_RELEASED = failpoints.declare("teardown.released", "its entry is removed")


class Backend(Protocol):
    """The part of a `Runtime` that a teardown needs."""

    async def teardown(self, instance: Instance, /) -> None:
        """See `Runtime.teardown`."""

    async def list_instances(self, install: str, /) -> frozenset[str]:
        """See `Runtime.list_instances`."""


@attrs.frozen
class Outcome:
    """What became of one entry.

    Attributes:
        name: name of the instance, or its file where even that is damaged.
        runtime: name of its runtime, where known.
        result: `gone`: seen to be absent and forgotten. `limbo`: absent, but the settle time is not
            over. `quarantined`: it could not be torn down. `busy`: another reaper has it, or a
            process of its dead owner is still at work. `alive`: its owner lives. `held`: kept on
            purpose. `unreadable`: its entry is damaged. All but `gone` stay in the ledger.
        error: what went wrong, or is being waited for.
    """

    name: str
    runtime: str | None
    result: Result
    error: str | None = None


@attrs.frozen(eq=False)
class Teardown:
    """Ends one instance whose lease this process holds.

    Args:
        lease: stays held unless the outcome is `gone`.
        settle: seconds for which the absence must last before it counts.
        patient: wait for the settle time to be over, instead of leaving that to a reaper.
        attempt_timeout: seconds that the backend has for one attempt.
        gate: held around every call of the backend.
    """

    lease: Lease
    settle: float = 0.0
    patient: bool = True
    attempt_timeout: float = ATTEMPT_TIMEOUT
    gate: contextlib.AbstractAsyncContextManager[object] = attrs.field(
        factory=contextlib.nullcontext
    )

    async def run(self, backend: Backend, instance: Instance, until: float) -> Outcome:
        """Try until the absence was seen, or until the monotonic time `until`.

        A failure of the backend is retried with growing pauses; what is left is quarantined.
        """
        lease, runtime = self.lease, self.lease.intent.runtime
        attempt = 0
        while True:
            if time.monotonic() >= until:
                return Outcome(lease.name, runtime, "busy", "the deadline came first")
            try:
                appeared = await self._attempt(backend, instance, until)
            except Exception as error:  # noqa: BLE001 - a backend's failure is recorded and retried
                pause = backoff(attempt)
                attempt += 1
                if time.monotonic() + pause >= until:
                    text = str(error) or type(error).__name__
                    await in_thread(lease.mark, "quarantined", error=text[:500])
                    return Outcome(lease.name, runtime, "quarantined", text)
            else:
                attempt = 0
                pause = await self._unsettled(appeared=appeared)
                if pause <= 0:
                    break
                if not self.patient or time.monotonic() + pause >= until:
                    text = f"absent, not yet for {self.settle:g} s"
                    return Outcome(lease.name, runtime, "limbo", text)
                pause = min(pause, max(0.05, min(1.0, self.settle / 10)))
            await asyncio.sleep(pause)
        await in_thread(lease.release)
        failpoints.hit(_RELEASED)
        return Outcome(lease.name, runtime, "gone")

    async def _attempt(self, backend: Backend, instance: Instance, until: float) -> bool:
        """Delete once, see that it is absent, and return whether it was there before."""
        lease, install = self.lease, self.lease.intent.install
        appeared = False
        async with self.gate:
            seconds = min(self.attempt_timeout, max(0.0, until - time.monotonic()))
            try:
                async with asyncio.timeout(seconds):
                    if lease.state == "limbo":
                        appeared = lease.name in await backend.list_instances(install)
                    failpoints.hit(_PRE_TEARDOWN)
                    await backend.teardown(instance)
                    failpoints.hit(_POST_TEARDOWN)
                    present = await backend.list_instances(install)
            except TimeoutError as error:
                raise TeardownFailed(f"not torn down within {seconds:.3g} s") from error
        if lease.name in present:
            raise TeardownFailed("still there after its teardown")
        failpoints.hit(_VERIFIED)
        return appeared

    async def _unsettled(self, *, appeared: bool) -> float:
        """Return for how many seconds the absence just seen must last; note since when it does.

        The time counts from the first look that found it absent after the owner's death, and from
        the next such look whenever it has appeared since. A later reaper of the same boot carries
        on, because the creation in question started before the owner's death, and it makes a look
        of its own before it decides. After a reboot the clock means nothing, so it counts from the
        start. The clock stands still while the machine sleeps, as does a server with its creation.
        """
        if self.settle <= 0:
            return 0.0
        lease = self.lease
        now, boot = durable.awake_time(), durable.boot_id()
        known = lease.state == "limbo" and lease.detail.get("boot") == boot and not appeared
        since = lease.detail.get("since") if known else None
        if not isinstance(since, int | float) or since > now:
            failpoints.hit(_PRE_LIMBO)
            await in_thread(lease.mark, "limbo", boot=boot, since=now)
            failpoints.hit(_POST_LIMBO)
            return self.settle
        if now - since < self.settle:
            return self.settle - (now - since)
        failpoints.hit(_SETTLED)
        return 0.0


def backoff(attempt: int, cap: float = 30.0) -> float:
    """Seconds before the next attempt; jitter keeps concurrent reapers out of step."""
    return min(cap, 0.1 * 2.0 ** min(attempt, 20)) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
