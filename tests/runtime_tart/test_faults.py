"""Whatever goes wrong with Tart or a guest: told with its remedy, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from claw_core import router
from claw_core.errors import CapacityExhausted, ClawError, DeadlineExceeded, Refused, RuntimeFault
from claw_core.session import Deadlines
from claw_runtime_tart import cloning, connecting, processes, reaching
from cli.support import claw, entries, eventually, start
from runtime_tart import worlds
from runtime_tart.support import output, run, session, shell
from simulators.tart.world import Simulator


def nothing_is_left(world: Simulator, state: Path) -> None:
    """No machine, no process, no directory, no entry; after reaps, for what needs one."""
    world.heal()

    def reaped() -> bool:
        claw("reap", "--deadline", "30s")
        return entries(state) == []

    assert eventually(reaped, 60), entries(state)
    assert world.vms() == {worlds.BASE}
    assert world.processes() == {}


async def once(world: Simulator, **options: Any) -> str:
    async with session(world, **options) as s:
        return await shell(s, "echo hi")


@pytest.mark.parametrize(
    ("verb", "kind", "options"),
    [
        ("clone", "no such file", {"times": 2}),
        ("clone", "slow", {"seconds": 0.5}),
        ("run", "limit", {"times": 1}),
        ("run", "limit late", {"times": 1}),
        ("run", "old limit", {"times": 1}),
        ("run", "deaf", {}),
        ("run", "slow to die", {"seconds": 1}),
        ("run", "no agent", {}),
        ("run", "no socket", {}),
        ("run", "torn lease", {}),
        ("ip", "truncated leases", {"times": 1}),
        ("ip", "empty", {"times": 1}),
        ("ssh", "refused", {"seconds": 0.4}),
        ("ssh", "reset", {"seconds": 0.5}),
        ("ssh", "hang", {"seconds": 0.5}),
        ("ssh", "host key", {}),
        ("run", "wrong lease", {"address": "127.9.9.9", "seconds": 0.5}),
        ("stop", "early", {}),
        ("delete", "is running", {"times": 3}),
        ("delete", "half", {}),
        ("delete", "fail", {"times": None}),
        ("list", "hang", {"times": None}),
    ],
)
def test_what_passes_is_overcome(
    world: Simulator,
    state: Path,
    verb: str,
    kind: str,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(router, "FULL_PAUSE", 0.05)
    world.fault(verb, kind, **options)
    settings = {"leases": "/no/leases"} if verb == "ip" else {}
    assert run(once(world, settings=settings)) == "hi\n"
    nothing_is_left(world, state)


def test_a_base_that_runs_or_is_suspended_is_cloned_all_the_same(
    world: Simulator, state: Path
) -> None:
    said: list[str] = []
    running = world.run(worlds.BASE, "--suspendable")
    world.address(worlds.BASE)
    assert run(once(world, listener=lambda event: said.append(str(event)))) == "hi\n"
    assert any("is running: its clones have" in text for text in said)
    assert world.tart("suspend", worlds.BASE).returncode == 0
    running.communicate(timeout=30)
    assert run(once(world)) == "hi\n"
    nothing_is_left(world, state)


def test_a_tart_directory_that_cannot_be_used_is_told(world: Simulator, state: Path) -> None:
    (world.home / ".claw-clone").mkdir()
    with pytest.raises(RuntimeFault, match=f"cannot use {world.home}: Is a directory"):
        run(once(world))
    nothing_is_left(world, state)


@pytest.mark.parametrize(
    ("verb", "kind", "error", "why", "remedy"),
    [
        ("clone", "no space", RuntimeFault, "cannot clone .*out of space", "free disk space"),
        ("clone", "no such file", RuntimeFault, "cannot clone .*no such file", "tart clone"),
        ("clone", "killed before", RuntimeFault, "cannot clone", "tart clone"),
        ("clone", "killed after", RuntimeFault, "cannot clone", "tart clone"),
        ("run", "keychain", RuntimeFault, "before it took commands.*SecKey", "unlock"),
        ("run", "does not start", RuntimeFault, "failed to start", None),
        ("run", "auxiliary storage", RuntimeFault, "auxiliary storage", "other process"),
        ("run", "limit", CapacityExhausted, "exceeds the system limit", "two at most"),
        ("run", "old limit", CapacityExhausted, "maximum supported number", "restart the Mac"),
        ("run", "no lease", DeadlineExceeded, "the guest got no address within 2 s", "tart run"),
        ("run", "no ssh", DeadlineExceeded, "no SSH server answered at 127", "TART_SSH_TIMEOUT"),
        ("ssh", "denied", RuntimeFault, "does not let admin in with its password", "PASSWORD"),
        ("ssh", "hang", DeadlineExceeded, "no SSH server answered", "TART_SSH_TIMEOUT"),
    ],
)  # fmt: skip
def test_what_stays_is_told(
    world: Simulator,
    state: Path,
    verb: str,
    kind: str,
    error: type[ClawError],
    why: str,
    remedy: str | None,
) -> None:
    times = 1 if kind.startswith("killed") else None
    world.fault(verb, kind, times=times, seconds=60)
    deadlines = Deadlines(capacity=0.1, teardown=1.0)
    with pytest.raises((ClawError, BaseExceptionGroup)) as caught:
        run(once(world, settings={"ssh_timeout": 2}, deadlines=deadlines))
    found = [one for one in _all(caught.value) if isinstance(one, error)]
    assert found, caught.value
    assert any(_matches(one, why, remedy) for one in found), found
    nothing_is_left(world, state)


def _all(error: BaseException) -> list[BaseException]:
    inner = getattr(error, "exceptions", ())
    return [error, *(one for part in inner for one in _all(part))]


def _matches(error: BaseException, why: str, remedy: str | None) -> bool:
    assert isinstance(error, ClawError)
    said = re.search(why, error.message) is not None
    return said and (remedy is None or remedy in str(error.remedy))


def test_a_clone_that_hangs_is_killed(
    world: Simulator, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloning, "CLONE_TIMEOUT", 0.5)
    world.fault("clone", "hang with lock")
    with pytest.raises(RuntimeFault, match=r"did not end within 0\.5 s and was killed"):
        run(once(world))
    nothing_is_left(world, state)


def test_a_stop_that_hangs_is_not_waited_for(
    world: Simulator, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner is dead, so the reaper has to ask Tart."""
    world.fault("stop", "hang")
    done = claw("run", "-q", "-r", "tart", "--", "true", env={"CLAW_FAILPOINT": "tart.ready=kill"})
    assert done.returncode == -9
    nothing_is_left(world, state)


@pytest.mark.parametrize("dies", [False, True])
def test_a_tart_that_goes_meanwhile_leaves_nothing(
    world: Simulator, state: Path, *, dies: bool
) -> None:
    """It is being upgraded, or is another one now: the machine ends, and its directory goes."""
    tart = world.bin / "tart"
    with start("run", "-q", "-r", "tart", "--", "sh", "-c", "echo hi; cat") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"hi\n"
        tart.rename(world.bin / "old")
        if not dies:
            tart.write_text("#!/bin/sh\necho nonsense\n")
            tart.chmod(0o755)
        process.send_signal(signal.SIGKILL if dies else signal.SIGTERM)
        process.communicate()
    nothing_is_left(world, state)


@pytest.mark.parametrize("dialect", [1, 2])
def test_both_readings_of_a_delete_of_what_runs(
    world: Simulator, state: Path, dialect: int
) -> None:
    world.knobs(delete_running=dialect)
    world.fault("stop", "early", seconds=0.5)
    done = claw("run", "-q", "-r", "tart", "--", "true", env={"CLAW_FAILPOINT": "tart.ready=kill"})
    assert done.returncode == -9
    nothing_is_left(world, state)


def test_a_guest_that_crashes_ends_the_command(world: Simulator, state: Path) -> None:
    world.fault("run", "crash", seconds=1.5)

    async def work() -> None:
        async with session(world) as s:
            await output(s, "sleep", "600")

    with pytest.raises(RuntimeFault, match=r"has ended while the command ran: .*due to error"):
        run(work())
    nothing_is_left(world, state)


def test_a_guest_that_shuts_down_ends_the_command(world: Simulator, state: Path) -> None:
    async def work() -> None:
        async with session(world) as s:
            await output(s, "sh", "-c", "sudo shutdown -h now; sleep 600")

    with pytest.raises(RuntimeFault, match="has ended while the command ran: guest has stopped"):
        run(work())
    nothing_is_left(world, state)


def test_a_machine_whose_supervisor_is_killed_counts_as_ended(
    world: Simulator, state: Path
) -> None:
    """It goes on, with its output open, and nobody would end it with us."""

    async def work() -> None:
        async with session(world) as s:
            supervisor = min(await processes.of(s.name))
            os.kill(supervisor, signal.SIGKILL)
            await output(s, "sleep", "600")

    with pytest.raises(RuntimeFault, match="has ended while the command ran"):
        run(work())
    nothing_is_left(world, state)


@pytest.mark.parametrize("version", ["2.27.0", "2.28.0", "2.30.6", "2.35.0", "SNAPSHOT"])
def test_versions(world: Simulator, state: Path, version: str) -> None:
    world.knobs(version=version)
    if version == "2.27.0":
        with pytest.raises(Refused, match=r"this is Tart 2\.27\.0, and 2\.28 is the first"):
            run(once(world))
    else:
        assert run(once(world)) == "hi\n"
    nothing_is_left(world, state)


def test_without_tart_or_its_image(
    world: Simulator, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Refused, match="no virtual machine nobody"):
        run(once(world, image="nobody"))
    world.tart("delete", worlds.BASE)
    with pytest.raises(Refused, match="claw image prepare tart"):
        run(once(world))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(Refused, match="brew install openai/tools/tart"):
        run(once(world))


def test_a_tart_that_talks_nonsense_is_told(world: Simulator, state: Path) -> None:
    world.fault("clone", "fail", code=0, text="nonsense", times=1)
    with pytest.raises(RuntimeFault, match=f"tart cannot clone {worlds.BASE}: nonsense"):
        run(once(world))
    (world.bin / "tart").write_text("#!/bin/sh\necho some nonsense\n")
    with pytest.raises(ClawError, match="tart cannot say its version: some nonsense"):
        run(once(world))
    nothing_is_left(world, state)


def test_a_poor_path_has_what_is_beside_tart(
    world: Simulator, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a service's PATH lacks Homebrew's directory, where also softnet is."""
    world.softnet()
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("HOME")
    settings = {"tart": str(world.bin / "tart"), "allow": ["192.0.2.0/24"]}
    assert run(once(world, settings=settings)) == "hi\n"
    nothing_is_left(world, state)


def test_a_base_that_goes_after_it_was_seen(world: Simulator, state: Path) -> None:
    world.fault("clone", "fail", text='the specified VM "x" does not exist', code=2)
    with pytest.raises(RuntimeFault, match="does not exist"):
        run(once(world))
    nothing_is_left(world, state)


def test_no_route_goes_through_the_guest_agent(
    world: Simulator, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "UNREACHABLE", 0.1)
    world.knobs(t_agent=1.0)  # as long as it takes a user to log in
    world.fault("run", "unroutable")
    assert run(once(world)) == "hi\n"
    nothing_is_left(world, state)


def test_no_route_and_no_agent_is_told(
    world: Simulator, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "UNREACHABLE", 0.1)
    monkeypatch.setattr(reaching, "AGENT_PATIENCE", 1.0)
    world.fault("run", "unroutable")
    world.fault("run", "no agent")
    with pytest.raises(RuntimeFault, match="there is no route to the guest at"):
        run(once(world))
    nothing_is_left(world, state)


def test_an_address_that_only_tart_knows_does_not_wait_for_an_agent(
    world: Simulator, state: Path
) -> None:
    world.base("linux-base", "linux")
    world.fault("run", "no agent")
    settings = {"leases": "/no/leases", "ssh_timeout": 12}
    assert run(once(world, image="linux-base", settings=settings)) == "hi\n"
    world.tart("delete", "linux-base")
    nothing_is_left(world, state)


@pytest.mark.parametrize("transport", ["agent", "proxy"])
def test_a_guest_agent_that_never_answers_is_told(
    world: Simulator, state: Path, transport: str
) -> None:
    world.fault("run", "no agent")
    settings = {"transport": transport, "ssh_timeout": 1}
    with pytest.raises(DeadlineExceeded, match="the guest agent did not answer within 1 s"):
        run(once(world, settings=settings))
    nothing_is_left(world, state)


def test_an_address_that_is_known_no_more_is_tried_again(
    world: Simulator, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock has jumped, or the server has lost its leases."""
    monkeypatch.setattr(connecting, "LOOK_AGAIN", 0.1)
    world.knobs(t_ssh=1.5)
    world.fault("run", "no agent")

    async def work() -> None:
        lost = asyncio.create_task(asyncio.to_thread(forget))
        assert await once(world, settings={"ssh_timeout": 15}) == "hi\n"
        await lost

    def forget() -> None:
        assert eventually(lambda: world.leases.exists() and bool(world.leases.read_text()), 20)
        time.sleep(0.1)
        world.leases.write_text("")

    run(work())
    nothing_is_left(world, state)


@pytest.mark.parametrize("home", ["with space", "relative"])
def test_where_tart_keeps_its_machines_may_be_named_in_many_ways(
    world: Simulator, state: Path, tmp_path: Path, home: str
) -> None:
    link = tmp_path / "a  b"
    link.symlink_to(world.home)
    named = str(link) if home == "with space" else os.path.relpath(world.home)
    env = {"TART_HOME": named, "CLAW_FAILPOINT": "tart.ready=kill"}
    assert claw("run", "-q", "-r", "tart", "--", "true", env=env).returncode == -9
    assert eventually(lambda: entries(state) == [], 30)
    nothing_is_left(world, state)


def test_what_is_not_ours_is_left_alone(world: Simulator, state: Path) -> None:
    world.tart("clone", worlds.BASE, "mine")
    world.tart("clone", worlds.BASE, "claw-0ddba11e-000000000000")
    mine = world.run("mine")
    world.address("mine")
    assert run(once(world)) == "hi\n"
    assert "mine" in world.running()
    mine.kill()
    mine.communicate()
    claw("reap", "--adopt", "--yes")
    assert {"mine", "claw-0ddba11e-000000000000"} <= world.vms()


def test_power_loss_is_cleaned_up_by_the_next(world: Simulator, state: Path) -> None:
    power_off, plan = world.power_off, {"CLAW_FAILPOINT": "tart.ready=hang"}
    with subprocess.Popen(
        [sys.executable, "-m", "claw_core", "run", "-q", "-r", "tart", "--", "true"],
        env={**os.environ, **plan},
        stderr=subprocess.DEVNULL,
    ) as process:
        assert eventually(lambda: len(world.running()) == 1, 30)
        power_off()
        process.kill()
    assert len(world.vms()) == 2
    nothing_is_left(world, state)
