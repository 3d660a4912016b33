"""The one way in which an instance ends: deleted, seen to be absent, and only then forgotten."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Literal, Protocol, TypeAlias

import attrs

from claw_core import failpoints, vfs
from claw_core.errors import LedgerUnavailable, TeardownFailed
from claw_core.lease import Lease
from claw_core.model import Instance
from claw_core.tasks import in_thread

Result: TypeAlias = Literal["gone", "limbo", "quarantined", "busy", "alive", "held", "unreadable"]

ATTEMPT_TIMEOUT: Final = 60.0
"""Seconds that a backend has for one attempt."""

_PRE_DELETE = failpoints.declare("teardown.pre-delete", "the backend is about to delete it")
_POST_DELETE = failpoints.declare("teardown.post-delete", "the backend says that it is deleted")
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


async def destroy(
    backend: Backend,
    instance: Instance,
    lease: Lease,
    *,
    deadline: float,
    settle: float,
    patient: bool = False,
    attempt_timeout: float = ATTEMPT_TIMEOUT,
    calls: asyncio.Semaphore | None = None,
) -> Outcome:
    """Tear an instance down verifiably and end its lease, whatever comes.

    Only `gone` removes the entry. `limbo` and `quarantined` leave it for the next reaper, and so
    does cancellation.

    Args:
        backend: what tears it down.
        instance: what to tear down.
        lease: this process's hold on it.
        deadline: seconds after which no new attempt is made.
        settle: seconds for which it must be absent, because a creation may still come to light.
        patient: wait for the settle time as far as the deadline allows; otherwise return `limbo`.
        attempt_timeout: seconds that the backend has for one attempt.
        calls: bounds how many attempts are made at a time; waiting for it costs no attempt.
    """
    until = vfs.monotonic() + deadline
    attempt = 0
    failure: Exception | None = None
    with lease:
        if lease.state == "held":
            lease.mark("stopping")  # nobody may take for kept what is gone by half
        while True:
            try:
                async with calls or contextlib.nullcontext():
                    seconds = min(attempt_timeout, until - vfs.monotonic())
                    if seconds <= 0 and failure is not None:
                        return await quarantine(lease, failure)
                    if seconds <= 0:
                        text = "the deadline came before the first attempt"
                        return Outcome(lease.name, lease.intent.runtime, "busy", text)
                    appeared = await _attempt(backend, instance, lease, seconds)
            except Exception as error:  # noqa: BLE001 - a third party's failure is recorded
                failure = error
                pause = backoff(attempt)
                if vfs.monotonic() + pause >= until:
                    return await quarantine(lease, error)
                attempt += 1
            else:
                attempt, failure = 0, None
                pause = await _remaining(lease, settle, appeared=appeared)
                if pause <= 0:
                    break
                if not patient or vfs.monotonic() + pause >= until:
                    text = f"absent, not yet for {settle:g} s"
                    return Outcome(lease.name, lease.intent.runtime, "limbo", text)
                pause = min(pause, max(0.05, min(1.0, settle / 10)))
            await asyncio.sleep(pause)
        try:
            await in_thread(lease.release)
        except LedgerUnavailable as error:
            return Outcome(lease.name, lease.intent.runtime, "quarantined", str(error))
    failpoints.hit(_RELEASED)
    return Outcome(lease.name, lease.intent.runtime, "gone")


async def _attempt(backend: Backend, instance: Instance, lease: Lease, seconds: float) -> bool:
    """Delete once, see that it is absent, and return whether it was there before.

    Raises:
        TeardownFailed: it is still there, or it took too long.
    """
    install, appeared = lease.intent.install, False
    try:
        async with asyncio.timeout(seconds):
            if lease.state == "limbo":
                appeared = instance.name in await backend.list_instances(install)
            failpoints.hit(_PRE_DELETE)
            await backend.teardown(instance)
            failpoints.hit(_POST_DELETE)
            present = await backend.list_instances(install)
    except TimeoutError as error:
        raise TeardownFailed(str(error) or f"not torn down within {seconds:.3g} s") from error
    if instance.name in present:
        raise TeardownFailed("still there after its teardown")
    failpoints.hit(_VERIFIED)
    return appeared


async def quarantine(lease: Lease, error: Exception) -> Outcome:
    """Note why an instance could not be torn down; it stays for the next reaper."""
    text = str(error) or type(error).__name__
    await in_thread(lease.mark, "quarantined", error=text[:500])
    return Outcome(lease.name, lease.intent.runtime, "quarantined", text)


async def _remaining(lease: Lease, settle: float, *, appeared: bool) -> float:
    """Return for how many seconds the absence just seen must still last; note since when it does.

    The time counts from the first look that found it absent after the owner's death, and from the
    next such look whenever it has appeared since. A later reaper of the same boot carries on, since
    the creation in question started before the owner's death, and it makes a look of its own before
    it decides. After a reboot the clock means nothing, so it counts from the start. It stands still
    while the machine sleeps, as does a local server with the creation.
    """
    if settle <= 0:
        return 0.0
    now, boot = vfs.awake_time(), vfs.boot_id()
    known = lease.state == "limbo" and lease.detail.get("boot") == boot and not appeared
    since = lease.detail.get("since") if known else None
    if not isinstance(since, int | float) or since > now:
        failpoints.hit(_PRE_LIMBO)
        await in_thread(lease.mark, "limbo", boot=boot, since=now)
        failpoints.hit(_POST_LIMBO)
        return settle
    if now - since < settle:
        return settle - (now - since)
    failpoints.hit(_SETTLED)
    return 0.0


def backoff(attempt: int, cap: float = 30.0) -> float:
    """Seconds before the next attempt; jitter keeps concurrent reapers out of step."""
    return min(cap, 0.1 * 2.0 ** min(attempt, 20)) * vfs.uniform(0.5, 1.0)
