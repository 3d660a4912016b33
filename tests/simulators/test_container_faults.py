"""What goes wrong with the real `container` can be made to go wrong with the simulated one."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.support import eventually
from simulators.container.world import IMAGE, World
from simulators.container_support import QUIET, error, listed, running, said

HINT = "\nEnsure container system service has been started with `container system start`."
INVALID = '(cause: "interrupted: "XPC connection error: Connection invalid"")'
RUN = ("run", "--rm", *QUIET, "--name", "one", IMAGE)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A Mac with version 1.2.2."""
    with World(tmp_path / "mac") as world:
        yield world


def bootout(world: World, name: str) -> int:
    """Take a helper out by launchctl."""
    label = f"com.apple.container.container-runtime-linux.{name}"
    argv = [str(world.bin / "launchctl"), "bootout", f"gui/{os.getuid()}/{label}"]
    return subprocess.run(argv, capture_output=True, check=False).returncode


def labels(world: World) -> str:
    """What launchctl lists."""
    argv = [str(world.bin / "launchctl"), "list"]
    return subprocess.run(argv, capture_output=True, check=True).stdout.decode()


def hangs(process: subprocess.Popen[bytes], seconds: float = 0.4) -> bool:
    """Whether a process does not end."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def busy(world: World) -> bool:
    """Whether the server's lock is held."""
    with open(world.mac.path("server.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_server_that_is_not_there(world: World) -> None:
    world.configure(server="unregistered")
    listing = f'internalError: "failed to list containers" {INVALID}{HINT}'
    for argv in (("ls",), ("inspect", "one"), ("exec", "one", "true"), ("start", "one")):
        assert error(world, *argv) == listing
    ping = f'interrupted: "XPC connection error: Connection invalid"{HINT}'
    for other in (RUN, ("create", IMAGE), ("image", "inspect", IMAGE)):
        assert error(world, *other) == ping
    for verb in ("stop", "kill", "delete"):
        text = f'internalError: "failed to {verb} container" {INVALID}{HINT}'
        assert error(world, verb, "one") == text
    code, out, _ = said(world, "system", "status")
    assert (code, out) == (1, "apiserver is not running and not registered with launchd\n")
    code, out, _ = said(world, "system", "status", "--format", "json")
    assert (code, json.loads(out)["status"], json.loads(out)["appRoot"]) == (1, "unregistered", "")
    assert said(world, "--version")[0] == 0
    assert len(json.loads(said(world, "system", "version", "--format", "json")[1])) == 1
    code, out, err = said(world, "system", "start", "--enable-kernel-install")
    assert (code, out) == (0, "")
    assert err.startswith("Launching container-apiserver...\n")
    assert said(world, "system", "status")[0] == 0


def test_a_start_asks_about_the_kernel(world: World) -> None:
    world.configure(kernel=False)
    code, out, err = said(world, "system", "start", stdin=b"")
    assert code == 1
    assert out == "Install the recommended default kernel from [URL]? [Y/n]: "
    assert err.endswith("Error: failed to read user input\n")
    assert said(world, "system", "start", "--enable-kernel-install")[:2] == (0, "")


def test_a_server_that_does_not_answer(world: World) -> None:
    world.configure(server="silent", timeout_seconds=0.2)
    code, out, _ = said(world, "system", "status")
    assert (code, out) == (1, "apiserver is not running\n")
    assert "XPC timeout for request to com.apple.container.apiserver/containerList" in error(
        world, "ls", "-a"
    )
    with world.start("delete", "--force", "one") as process:
        assert hangs(process)
        process.kill()


def test_any_command_may_hang(world: World) -> None:
    fault = world.fault("system status", "begin", "hang", call=2)
    assert said(world, "system", "status")[0] == 0
    with world.start("system", "status") as process:
        assert hangs(process)
        process.terminate()
        assert process.wait(30) == 143
    assert said(world, "system", "status")[0] == 0
    assert (fault.seen, fault.hits) == (3, 1)


def test_killed_before_it_was_created(world: World) -> None:
    world.fault("run", "before create", "kill")
    assert world.run(*RUN, "true").returncode == -signal.SIGKILL
    assert world.containers() == {}


def test_killed_between_creation_and_boot(world: World) -> None:
    world.fault("run", "before bootstrap", "kill")
    assert world.run(*RUN, "true").returncode == -signal.SIGKILL
    assert listed(world) == {}
    assert listed(world, "-a")["one"]["status"]["state"] == "stopped"
    assert said(world, "delete", "--force", "one")[0] == 0
    assert world.containers() == {}


def test_killed_between_boot_and_start(world: World) -> None:
    world.fault("run", "before start", "kill")
    assert world.run(*RUN, "true").returncode == -signal.SIGKILL
    assert listed(world) == {}
    assert listed(world, "-a")["one"]["status"] == {"networks": [], "state": "stopped"}
    assert world.containers()["one"].booted
    assert said(world, "stop", "one")[0] == 0
    assert world.containers()["one"].booted
    assert ".one\n" in labels(world)
    assert error(world, "exec", "one", "true") == "container one is not running"
    assert said(world, "delete", "--force", "one")[0] == 0
    assert eventually(lambda: world.processes() == {})
    assert ".one\n" not in labels(world)


def test_a_creation_goes_on_when_its_command_is_killed(world: World) -> None:
    fault = world.fault("run", "in create", "sleep", seconds=0)
    with world.mac.locked("server"):
        with world.start(*RUN, "true") as process:
            assert eventually(lambda: fault.hits == 1)
            process.kill()
        assert listed(world, "-a") == {}
        assert "not found" in error(world, "delete", "--force", "one")
    assert eventually(lambda: "one" in listed(world, "-a"))


def test_a_boot_goes_on_when_its_command_is_killed(world: World) -> None:
    fault = world.fault("run", "in bootstrap", "sleep", seconds=0.3)
    with world.start(*RUN, "true") as process:
        assert eventually(lambda: fault.hits == 1)
        process.kill()
    assert eventually(lambda: world.containers()["one"].booted)
    assert listed(world, "-a")["one"]["status"]["state"] == "stopped"


def test_a_crash_of_the_server_leaves_machines_alone(world: World) -> None:
    name = running(world)
    world.crash()
    assert listed(world) == {}
    assert listed(world, "-a")[name]["status"]["state"] == "stopped"
    assert said(world, "stop", name) == (0, f"{name}\n", "")
    assert "no runtime client exists" in error(world, "kill", name)
    assert error(world, "exec", name, "true") == f"container {name} is not running"
    truth = world.containers()[name]
    assert (truth.state, truth.booted, truth.pid is not None) == ("stopped", True, True)
    assert said(world, "delete", name)[0] == 0
    assert eventually(lambda: world.processes() == {})


def test_a_crash_removes_what_removes_itself(world: World) -> None:
    with world.start("run", "-i", *RUN[1:], "cat") as process:
        assert eventually(lambda: "one" in listed(world))
        world.crash()
        assert process.wait(30) == 1
        assert process.stderr is not None
        text = 'Error: interrupted: "XPC connection error: Connection interrupted"'
        assert process.stderr.read().decode().startswith(text)
    # The command has told the new server to delete it, which had done so as it was started.
    assert world.containers() == {}
    assert eventually(lambda: world.processes() == {})


@pytest.mark.parametrize("at", ["before", "in", "after"])
@pytest.mark.parametrize("request_", ["create", "bootstrap", "start"])
def test_a_crash_in_the_middle(world: World, request_: str, at: str) -> None:
    fault = world.fault("create" if request_ == "create" else "start", f"{at} {request_}", "crash")
    code, _, err = said(world, "create", "--name", "one", IMAGE, "sleep", "1000")
    if request_ == "create":
        assert (code, "Connection interrupted" in err) == ((1, True) if at == "in" else (0, False))
    else:
        said(world, "start", "one")
    assert fault.hits == 1
    said(world, "delete", "--force", "one")
    assert world.containers() == {}
    assert eventually(lambda: world.processes() == {})


def test_after_a_power_cut(world: World) -> None:
    running(world, "--rm", name="temporary")
    running(world, name="lasting")
    world.reboot()
    assert world.processes() == {}
    assert {one["status"]["state"] for one in listed(world, "-a").values()} == {"stopped"}
    assert set(world.containers()) == {"lasting"}


def test_a_helper_that_dies_under_an_exec(world: World) -> None:
    name = running(world)
    world.configure(exit_seconds=1)
    with world.start("exec", name, "sh", "-c", "echo ready; sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        world.kill_helper(name)
        assert process.wait(30) == 1
    assert listed(world)[name]["status"]["state"] == "running"  # it has not been noticed yet
    assert "Connection interrupted" in error(world, "exec", name, "true")
    assert eventually(lambda: listed(world, "-a")[name]["status"]["state"] == "stopped")
    assert said(world, "delete", "--force", name)[0] == 0


def test_a_frozen_guest_hangs_what_concerns_it(world: World) -> None:
    name = running(world)
    world.freeze(name)
    assert listed(world)[name]["status"]["state"] == "running"
    with (
        world.start("stop", "-t", "0", name) as stopping,
        world.start("delete", "--force", name) as deleting,
    ):
        assert hangs(stopping)
        assert hangs(deleting, 0.1)
        assert error(world, "delete", "--force", "another").endswith('another not found"")')
        assert bootout(world, name) == 0
        assert stopping.wait(30) == 0  # a connection that is interrupted counts as stopped
        code = deleting.wait(30)
        assert code == 1 or name not in world.containers()
    said(world, "delete", "--force", name)
    assert world.containers() == {}
    assert eventually(lambda: world.processes() == {})


def test_an_exec_in_a_frozen_guest_hangs_everything(world: World) -> None:
    for name in ("frozen", "other", "doomed"):
        running(world, name=name)
    world.freeze("frozen")
    with world.start("exec", "frozen", "true") as first:
        assert eventually(lambda: busy(world))
        assert hangs(first, 0.2)
        assert busy(world)
        first.kill()
    assert busy(world)  # the server goes on
    with (
        world.start("exec", "other", "true") as second,
        world.start("delete", "--force", "doomed") as third,
        world.start("create", "--name", "new", IMAGE, "true") as fourth,
    ):
        assert all(hangs(one, 0.1) for one in (second, third, fourth))
        assert set(listed(world)) == {"frozen", "other", "doomed"}
        assert bootout(world, "frozen") == 0
        assert second.wait(30) == 0
        assert third.wait(30) == 0
        assert fourth.wait(30) == 0
    assert eventually(lambda: set(world.containers()) == {"frozen", "other", "new"})


def test_a_deletion_that_fails_though_it_worked(world: World) -> None:
    name = running(world)
    text = "deleteProcess: exec 1234 does not exist"
    world.fault("delete", "after delete", "error", code="notFound", text=text)
    assert error(world, "delete", "--force", name) == (
        f'internalError: "failed to delete container" (cause: "notFound: "{text}"")'
    )
    assert world.containers() == {}


def test_a_deletion_that_fails_some_times(world: World) -> None:
    name = running(world)
    fault = world.fault("delete", "in delete", "error", times=3, text="deleteProcess: no exec")
    for _ in range(3):
        assert "deleteProcess" in error(world, "delete", "--force", name)
    assert said(world, "delete", "--force", name)[0] == 0
    assert fault.hits == 3


def test_a_deletion_that_only_seems_to_work(world: World) -> None:
    name = running(world)
    world.fault("delete", "before delete", "skip")
    assert said(world, "delete", "--force", name) == (0, f"{name}\n", "")
    assert name in listed(world)


def test_a_helper_that_outlives_its_container(world: World) -> None:
    name = running(world)
    world.forget(name)
    assert listed(world, "-a") == {}
    assert "not found" in error(world, "delete", "--force", name)
    assert ".one\n" in labels(world)
    assert world.containers()[name].booted
    assert bootout(world, name) == 0
    assert eventually(lambda: world.processes() == {})


def test_listings_that_fail_or_are_not_whole(world: World) -> None:
    name = running(world)
    world.fault("ls", "in containers", "error", times=2, text="broken")
    world.fault("ls", "output", "truncate", call=3)
    world.fault(
        "ls", "output", "alter", call=4, status={"state": "paused", "new": 1}, keys={"x": 1}
    )
    world.fault("ls", "output", "hide", call=5, name=name)
    for _ in range(2):
        assert error(world, "ls", "-a", "--format", "json") == "broken"
    code, out, _ = said(world, "ls", "-a", "--format", "json")
    assert code == 0
    with pytest.raises(ValueError, match="char"):
        json.loads(out)
    altered = listed(world, "-a")[name]
    assert (altered["status"]["state"], altered["status"]["new"], altered["x"]) == ("paused", 1, 1)
    assert listed(world, "-a") == {}
    assert name in listed(world, "-a")


def test_a_listing_that_takes_too_long(world: World) -> None:
    world.configure(timeout_seconds=0.2)
    world.fault("ls", "in containers", "sleep", seconds=30)
    assert "XPC timeout" in error(world, "ls")


def test_a_wait_that_is_interrupted(world: World) -> None:
    name = running(world)
    world.fault("exec", "after wait", "error", code="interrupted")
    code, _, err = said(world, "exec", name, "true")
    assert (code, err.startswith('Error: interrupted: "XPC connection error')) == (1, True)


def test_codes_that_are_not_the_programs(world: World) -> None:
    name = running(world)
    world.fault("exec", "end", "exit", status=255)
    text = "failed to exec process CancellationError()"
    world.fault("exec", "after wait", "error", call=2, text=text)
    assert said(world, "exec", name, "true")[0] == 255
    assert error(world, "exec", name, "true") == text


def test_output_that_is_cut_or_buried(world: World) -> None:
    name = running(world)
    world.fault("exec", "output", "truncate", stream=2)
    world.fault("exec", "begin", "say", call=2, text="failed to send signal: []\n", repeat=1000)
    argv = ("exec", name, "sh", "-c", "echo whole; echo 12345678 >&2")
    assert said(world, *argv) == (0, "whole\n", "1234")
    code, out, err = said(world, *argv)
    assert (code, out, err.count("failed to send signal")) == (0, "whole\n", 1000)


def test_a_full_disk(world: World) -> None:
    world.fault("create", "in create", "error", text="No space left on device")
    assert error(world, "create", "--name", "one", IMAGE) == "No space left on device"
    assert world.containers() == {}


def test_a_slow_pull_can_be_killed(world: World) -> None:
    world.image("far", registry=True)
    world.configure(online=True, pull_seconds=30)
    with world.start("run", *QUIET, "--name", "one", "far") as process:
        assert hangs(process)
        process.kill()
    assert world.containers() == {}


def test_a_boot_that_fails_leaves_nothing(world: World) -> None:
    world.fault("run", "in bootstrap", "error", text="failed to bootstrap container")
    assert error(world, *RUN, "true") == "failed to bootstrap container"
    assert world.containers() == {}


def test_a_fault_may_be_for_one_container(world: World) -> None:
    running(world, name="one")
    running(world, name="two")
    world.fault("delete", "before delete", "skip", times=9, container="two")
    said(world, "delete", "--force", "one")
    said(world, "delete", "--force", "two")
    assert set(world.containers()) == {"two"}


def test_the_server_does_one_thing_at_a_time(world: World) -> None:
    world.configure(boot_seconds=0.2)
    begun = time.monotonic()
    starts = [world.start("run", "-d", *QUIET, "--name", f"c{n}", IMAGE, "true") for n in range(3)]
    for process in starts:
        process.communicate()
    assert time.monotonic() - begun >= 0.6
