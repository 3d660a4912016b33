"""Whatever goes wrong with `container`, nothing of claw's is left, and nobody else is touched.

That nobody else is touched is what every world sees to when it is left.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

import claw_core
from claw_core import reaper
from claw_core.errors import ClawError, RuntimeFault, SpentInstance, TeardownFailed
from claw_core.ledger import Ledger
from claw_core.model import Audit, Exit
from claw_core.registry import Registry
from claw_core.session import Deadlines, Session
from claw_runtime_apple import cli, commands, listing, place, removal, starting
from claw_runtime_apple.runtime import AppleRuntime
from cli.support import entries, eventually
from runtime_apple.support import configured, gather, names, output, run, session, shell, table
from simulators.container.world import IMAGE, World

GONE = "deleteProcess: exec 4711 does not exist"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs in the simulation hangs for good, so that a short time shows it as well."""
    monkeypatch.setattr(cli, "PATIENCE", 2.0)
    monkeypatch.setattr(listing, "LIST_TIMEOUT", 2.0)
    monkeypatch.setattr(listing, "GRACE", 0.5)
    monkeypatch.setattr(removal, "DELETE_TIMEOUT", 1.0)
    monkeypatch.setattr(removal, "VANISHING", 0.5)
    monkeypatch.setattr(removal, "PAUSES", (0.0, 0.05, 0.1))
    monkeypatch.setattr(starting, "FAREWELL", 0.2)
    monkeypatch.setattr(place, "PATIENCE", 1.5)


def assert_nothing_is_left(world: World, state: Path) -> None:
    """After some more reaping, says the truth; a warden may be at it as well."""

    async def reaped() -> bool:
        await reaper.Reaper(Ledger.open(state), Registry().resolve).reap(30)
        return entries(state) == []

    assert eventually(lambda: run(reaped()), 30)
    assert names(world) == set()
    assert set(world.processes().values()) <= {"apiserver"}


def booted_out(world: World) -> list[str]:
    """What launchd was asked to end."""
    return [call.argv[1] for call in world.journal("launchctl") if call.argv[0] == "bootout"]


async def live(world: World, **options: Any) -> None:
    """A session that works, and ends in whatever way the world lets it."""
    async with session(world, **options) as s:
        assert await shell(s, "echo here") == "here\n"


async def begun(session: Session) -> asyncio.Task[Exit]:
    """A command that runs."""
    ready = asyncio.Event()

    async def sink(_: bytes) -> None:
        ready.set()

    running = asyncio.create_task(session.run(["sh", "-c", "echo here; sleep 600"], stdout=sink))
    await ready.wait()
    return running


def test_a_crashed_server_forgets_what_runs(world: World, state: Path) -> None:
    async def work() -> None:
        async with session(world) as s:
            running = await begun(s)
            world.crash()
            with pytest.raises(SpentInstance, match="could not be ended"):
                await running

    run(work())
    assert_nothing_is_left(world, state)


def test_a_machine_that_lives_in_a_container_called_stopped_is_found_and_ended(
    world: World, state: Path
) -> None:
    install = Ledger.open(state).install
    name = f"claw-{install}-0123456789ab"
    world.run("run", "-d", "--name", name, IMAGE, "sleep", "600")
    world.crash()
    found = world.containers()[name]
    assert (found.state, found.booted) == ("stopped", True)
    backends = [("apple", table(world))]

    async def work() -> None:
        looking = reaper.Reaper(Ledger.open(state), Registry().resolve, backends)
        assert [plan.name for plan in await looking.plan()] == [name]
        assert [one.result for one in await looking.reap(30, adopt=True)] == ["gone"]

    run(work())
    assert_nothing_is_left(world, state)


def test_a_helper_that_lives_although_nobody_lists_its_container(world: World, state: Path) -> None:
    async def work() -> None:
        runtime = AppleRuntime(table(world))
        async with session(world) as s:
            await shell(s, "echo here")
            world.forget(s.name)
            assert s.name in await runtime.list_instances(s.name.split("-")[1])
            name = s.name
        assert any(name in label for label in booted_out(world))

    run(work())
    assert_nothing_is_left(world, state)


def test_a_killed_helper(world: World, state: Path) -> None:
    async def work() -> None:
        async with session(world) as s:
            running = await begun(s)
            world.kill_helper(s.name)
            with pytest.raises(SpentInstance):
                await running

    run(work())
    assert_nothing_is_left(world, state)


def test_a_reboot(world: World, state: Path) -> None:
    async def work() -> None:
        async with session(world) as s:
            await shell(s, "echo here")
            world.reboot()
            with pytest.raises(RuntimeFault, match="not found"):
                await output(s, "true")

    run(work())
    assert_nothing_is_left(world, state)


SOAK = pytest.mark.soak


@pytest.mark.parametrize(
    "domain",
    ["gui/0", pytest.param("user/0", marks=SOAK), pytest.param("system", marks=SOAK)],
)
def test_a_frozen_guest_is_ended_by_launchd(world: World, state: Path, domain: str) -> None:
    world.configure(domain=domain.replace("0", str(os.getuid())))

    async def work() -> str:
        async with session(world) as s:
            await shell(s, "echo here")
            world.freeze(s.name)
            return s.name

    if domain == "system" and os.getuid() != 0:
        pytest.skip("that is root's")
    name = run(work())
    assert set(booted_out(world)) >= {
        f"{world.mac.knob('domain')}/com.apple.container.container-runtime-linux.{name}"
    }
    assert_nothing_is_left(world, state)


def test_a_command_in_a_frozen_guest_is_given_up_and_holds_nobody_up_for_good(
    world: World, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "START_TIMEOUT", 0.5)

    async def frozen() -> None:
        async with session(world) as s:
            world.freeze(s.name)
            with pytest.raises(SpentInstance, match="did not start within"):
                await output(s, "true")

    async def work() -> None:
        async with session(world) as other:
            await frozen()  # it holds the lock of the whole server meanwhile
            assert await shell(other, "echo alive") == "alive\n"

    run(work())
    assert_nothing_is_left(world, state)


@pytest.mark.parametrize(
    ("at", "action", "options"),
    [
        pytest.param("in delete", "error", {"text": GONE}, marks=SOAK),
        ("in delete", "error", {"text": GONE, "times": 3}),
        ("after delete", "error", {"text": GONE}),
        pytest.param("before delete", "skip", {}, marks=SOAK),
        ("before delete", "skip", {"times": 3}),
        ("begin", "hang", {}),
        pytest.param("begin", "exit", {"status": 255}, marks=SOAK),
        pytest.param("begin", "kill", {"times": 2}, marks=SOAK),
    ],
)
def test_a_delete_that_fails_lies_or_hangs(
    world: World, state: Path, at: str, action: str, options: dict[str, Any]
) -> None:
    fault = world.fault("delete", at, action, **options)
    run(live(world))
    assert fault.hits >= 1
    assert_nothing_is_left(world, state)


@SOAK
def test_a_container_that_cannot_be_removed_is_kept_in_sight(world: World, state: Path) -> None:
    launchctl, real = world.bin / "launchctl", world.bin / "launchctl.real"
    launchctl.rename(real)
    launchctl.write_text(f'#!/bin/sh\n[ "$1" = bootout ] || exec {real} "$@"\n')
    launchctl.chmod(0o755)

    async def work() -> None:
        async with session(world, deadlines=Deadlines(teardown=4)) as s:
            await shell(s, "echo here")
            world.freeze(s.name)

    with pytest.raises(TeardownFailed, match=r"still listed by|not torn down"):
        run(work())
    assert len(names(world)) == 1
    assert entries(state)
    real.rename(launchctl)
    assert_nothing_is_left(world, state)


@pytest.mark.parametrize(
    ("at", "action", "options"),
    [
        pytest.param("begin", "hang", {}, marks=SOAK),
        pytest.param("begin", "say", {"text": "warning: noise\n"}, marks=SOAK),
        pytest.param("in containers", "error", {"text": "odd"}, marks=SOAK),
        pytest.param("in containers", "sleep", {"seconds": 30}, marks=SOAK),
        ("output", "truncate", {}),
        ("output", "alter", {"keys": {"new": 1}, "status": {"state": "dreaming", "new": {}}}),
        pytest.param("begin", "exit", {"status": 255}, marks=SOAK),
    ],
)
def test_a_listing_that_cannot_be_trusted(
    world: World, state: Path, at: str, action: str, options: dict[str, Any]
) -> None:
    """The container is deleted, and the first look at it goes wrong; the second one counts."""
    fault = world.fault("ls", at, action, **options)
    run(live(world))
    assert fault.seen > 1
    assert_nothing_is_left(world, state)


def test_without_a_listing_nothing_is_known(world: World) -> None:
    runtime = AppleRuntime(table(world))
    for at, action in (("output", "truncate"), ("begin", "hang"), ("in containers", "error")):
        world.fault("ls", at, action)
        with pytest.raises(ClawError) as caught:
            run(runtime.list_instances("00000000"))
        assert caught.value.remedy
    assert run(runtime.list_instances("00000000")) == frozenset()


@SOAK
def test_a_delete_while_the_service_is_down_still_ends_the_machine(
    world: World, state: Path
) -> None:
    async def work() -> None:
        async with session(world, deadlines=Deadlines(teardown=3)) as s:
            await shell(s, "echo here")
            world.configure(server="unregistered")

    with pytest.raises(TeardownFailed):
        run(work())
    assert all(not one.booted for one in world.containers().values())
    assert "guest" not in world.processes().values()
    world.configure(server="running")
    assert_nothing_is_left(world, state)


@pytest.mark.parametrize(
    "point", [pytest.param("before create", marks=SOAK), "before bootstrap", "before start"]
)
def test_a_call_that_dies_while_it_makes_the_container(
    world: World, state: Path, point: str
) -> None:
    fault = world.fault("run", point, "kill")

    with pytest.raises(RuntimeFault, match="`container run` failed"):
        run(live(world))
    assert fault.hits == 1
    assert_nothing_is_left(world, state)


def test_a_crash_of_the_server_in_the_middle_of_a_boot(world: World, state: Path) -> None:
    world.fault("run", "in bootstrap", "crash")
    with pytest.raises(RuntimeFault):
        run(live(world))
    assert_nothing_is_left(world, state)


@pytest.mark.parametrize(
    "delay", [pytest.param(0.4, marks=SOAK), 0.9, pytest.param(1.1, marks=SOAK)]
)
def test_a_creation_that_goes_on_in_the_server_is_waited_for(
    world: World, state: Path, delay: float
) -> None:
    world.configure(create_seconds=0.5, boot_seconds=0.5)

    async def work() -> None:
        task = asyncio.create_task(live(world))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    run(work())
    assert_nothing_is_left(world, state)
    time.sleep(0.6)
    assert names(world) == set()


def test_a_slow_unpacking_while_the_owner_dies_is_ended(world: World, state: Path) -> None:
    """The call is no child of the reaper, and would make the container long after it."""
    world.fault("run", "before image", "sleep", seconds=60)

    async def work() -> None:
        config = configured(table(world))
        async with claw_core.Router.open(config=config) as router:
            task = asyncio.create_task(router.session(runtime="apple").__aenter__())
            async with asyncio.timeout(20):
                while not any(call.argv[0] == "run" for call in world.journal()):
                    await asyncio.sleep(0.02)
            runtime = AppleRuntime(table(world))
            install = Ledger.open(state).install
            (name,) = await runtime.list_instances(install)
            assert await listing.calls(cli.Cli(str(world.bin / "container")))
            task.cancel()
            await asyncio.wait({task})
            assert name not in await runtime.list_instances(install)

    run(work())
    assert_nothing_is_left(world, state)


@pytest.mark.parametrize(
    ("at", "action", "options"),
    [
        ("after wait", "error", {"text": "failed to exec process CancellationError()"}),
        ("after wait", "error", {"code": "interrupted"}),
        pytest.param("end", "exit", {"status": 255}, marks=SOAK),
        pytest.param("end", "exit", {"status": 1}, marks=SOAK),
        ("begin", "say", {"text": "Warning! something\n", "repeat": 2000}),
    ],
)
def test_what_the_call_says_in_the_end_is_not_what_the_command_did(
    world: World, state: Path, at: str, action: str, options: dict[str, Any]
) -> None:
    fault = world.fault("exec", at, action, call=2, **options)

    async def work() -> None:
        async with session(world) as s:
            try:
                ended, out, err = await output(s, "sh", "-c", "echo out; echo err >&2; exit 5")
            except RuntimeFault:
                assert at == "after wait"  # the call may not have passed all of it on then
            else:
                assert (ended.code, out, err) == (5, "out\n", "err\n")

    run(work())
    assert fault.hits == 1
    assert_nothing_is_left(world, state)


def test_output_that_was_cut_off_is_a_fault(world: World, state: Path) -> None:
    world.fault("exec", "output", "truncate", call=2)

    async def work() -> None:
        async with session(world) as s:
            with pytest.raises(RuntimeFault):
                await output(s, "sh", "-c", "seq 1000")

    run(work())
    assert_nothing_is_left(world, state)


def test_a_command_that_may_have_started_spends_its_instance(world: World, state: Path) -> None:
    world.fault("exec", "before wait", "error", code="interrupted", call=2)

    async def work() -> None:
        async with session(world) as s:
            with pytest.raises(SpentInstance, match="Connection interrupted"):
                await output(s, "sleep", "600")

    run(work())
    assert_nothing_is_left(world, state)


def test_a_command_that_was_refused_spends_nothing(world: World, state: Path) -> None:
    text = "failed to create process in container"
    world.fault("exec", "before create_process", "error", text=text, call=2)

    async def work() -> None:
        async with session(world) as s:
            with pytest.raises(RuntimeFault, match=text):
                await output(s, "true")
            assert await shell(s, "echo next") == "next\n"

    run(work())
    assert_nothing_is_left(world, state)


@SOAK
def test_an_exec_that_hangs_before_it_starts(
    world: World, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "START_TIMEOUT", 0.5)
    world.fault("exec", "begin", "hang", call=2)

    async def work() -> None:
        async with session(world) as s:
            with pytest.raises(SpentInstance, match="did not start within"):
                await output(s, "true")

    run(work())
    assert_nothing_is_left(world, state)


def test_the_name_is_free_late_and_the_address_comes_late(world: World, state: Path) -> None:
    world.configure(exit_seconds=0.5, addresses_after=3)
    run(live(world, network="default"))
    assert_nothing_is_left(world, state)


def test_an_image_that_cannot_be_loaded_ends_no_instance(world: World, state: Path) -> None:
    world.fault("image load", "before load", "error", text="No space left on device")

    async def work() -> None:
        async with session(world) as s:
            with pytest.raises(RuntimeFault, match="No space left") as caught:
                await s.snapshot(Audit("full"))
            assert "free disk space" in str(caught.value.remedy)
            assert (await s.snapshot(Audit("later"))).startswith("claw-audit:later-")

    run(work())
    assert_nothing_is_left(world, state)


@SOAK
def test_many_at_once_with_slow_boots(world: World, state: Path) -> None:
    world.configure(boot_seconds=0.2)

    async def work() -> None:
        await gather(*(live(world) for _ in range(4)))

    run(work())
    assert_nothing_is_left(world, state)
