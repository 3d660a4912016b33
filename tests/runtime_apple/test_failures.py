"""What is missing, too old, down or wrong is told, each with its own remedy; nothing is started."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import claw_core
from claw_core.errors import ClawError, ConfigError, Refused, RuntimeFault
from claw_core.model import Resources
from claw_core.session import Deadlines
from claw_runtime_apple import cli
from claw_runtime_apple.errors import (
    ContainerError,
    ContainerSilent,
    ContainerUnavailable,
    failure,
    words,
)
from claw_runtime_apple.runtime import AppleRuntime
from runtime_apple.support import configured, names, output, run, session, shell, table
from simulators.container.world import World

DOWN = (
    'internalError: "failed to list containers" '
    '(cause: "interrupted: "XPC connection error: Connection invalid"")'
)
HINT = "Ensure container system service has been started with `container system start`."


def refused(world: World, settings: dict[str, Any] | None = None, **options: Any) -> ClawError:
    """The error with which a session does not open; nothing of it is left."""

    async def work() -> None:
        async with (
            claw_core.Router.open(config=configured(table(world, **(settings or {})))) as router,
            router.session(runtime="apple", **options),
        ):
            raise AssertionError

    with pytest.raises(ClawError) as caught:
        run(work())
    assert caught.value.remedy
    assert names(world) == set()
    assert [kind for kind in world.processes().values() if kind != "apiserver"] == []
    return caught.value


def test_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    runtime = AppleRuntime({})
    found = run(runtime.describe())
    assert not found.available
    assert "no `container` command" in str(found.reason)
    assert "releases" in str(found.remedy)
    with pytest.raises(ContainerUnavailable, match="no `container` command"):
        run(runtime.list_instances("00000000"))
    gone = AppleRuntime({"command": str(tmp_path / "container")})
    assert "cannot run" in str(run(gone.describe()).reason)


@pytest.mark.parametrize(
    ("server", "why"),
    [("unregistered", "the service of `container` does not"), ("silent", "did not answer within")],
)
def test_a_service_that_does_not_run(
    world: World, monkeypatch: pytest.MonkeyPatch, server: str, why: str
) -> None:
    monkeypatch.setattr(cli, "PATIENCE", 0.5)
    world.configure(server=server, kernel=False)
    error = refused(world)
    found = run(AppleRuntime(table(world)).describe())
    assert not found.available
    for text, remedy in ((str(error), error.remedy), (str(found.reason), found.remedy)):
        assert why in text
        assert "container system start --enable-kernel-install" in str(remedy)
    assert not [call for call in world.journal() if call.argv[:2] == ("system", "start")]


def test_a_version_that_is_too_old(world: World) -> None:
    world.configure(version="0.7.1")
    error = refused(world)
    assert "container 0.7.1 is too old" in str(error)
    assert "install container 1.0 or later" in str(error.remedy)
    assert not run(AppleRuntime(table(world)).describe()).available


def test_a_command_that_is_another_one(tmp_path: Path) -> None:
    other = tmp_path / "container"
    other.write_text("#!/bin/sh\necho something else\n")
    other.chmod(0o755)
    found = run(AppleRuntime({"command": str(other)}).describe())
    assert "says no version" in str(found.reason)


def test_an_image_that_is_missing_without_a_network(world: World) -> None:
    error = refused(world, image="example.org/absent:1")
    assert "there is no image example.org/absent:1, and it cannot be pulled" in str(error)
    assert "container image load" in str(error.remedy)
    assert not [call for call in world.journal() if call.argv[0] == "run"]


def test_an_image_that_vanishes_is_not_pulled_behind_ones_back(world: World) -> None:
    world.fault("image inspect", "begin", "exit", call=2, status=1)
    error = refused(world, {"pull": False})
    assert error.phase == "prepare"
    assert world.pulls() == []


def test_a_limit_that_this_version_lacks(world: World, tmp_path: Path) -> None:
    old = tmp_path / "container"
    old.write_text("#!/bin/sh\necho container CLI version 0.8.0 '(build: release)'\n")
    old.chmod(0o755)

    async def work() -> None:
        settings = configured({"command": str(old), "user": "5", "image": "x"})
        async with (
            claw_core.Router.open(config=settings) as router,
            router.session(runtime="apple", resources=Resources(processes=5)),
        ):
            raise AssertionError

    with pytest.raises(Refused, match="cannot limit processes") as caught:
        run(work())
    assert "container 1.0" in str(caught.value.remedy)


def test_an_option_that_this_version_lacks(world: World) -> None:
    world.fault("run", "begin", "exit", status=64)
    error = refused(world)
    assert isinstance(error, ContainerError)
    assert error.code == 64
    assert "this version lacks an option" in str(error.remedy)


def test_a_service_that_goes_down_before_the_start(world: World) -> None:
    world.fault("run", "begin", "knob", knobs={"server": "unregistered"})

    async def work() -> None:
        async with session(world, deadlines=Deadlines(teardown=1)):
            raise AssertionError

    with pytest.raises(BaseExceptionGroup) as caught:  # nor can the teardown be verified then
        run(work())
    assert "container system start" in str(caught.value.exceptions[0])
    world.configure(server="running")


def test_a_name_that_is_taken_is_not_touched(world: World) -> None:
    world.fault("run", "before create", "error", text="container with id X already exists")
    assert "remove the container that has its name" in str(refused(world).remedy)


def test_a_boot_that_fails_leaves_nothing(world: World) -> None:
    world.fault("run", "in bootstrap", "error", text="no space left on device")
    error = refused(world)
    assert "no space left" in str(error)
    assert "free disk space" in str(error.remedy)


@pytest.mark.parametrize(
    "call",
    ["--version", "system status", "image inspect"],
)
def test_a_question_that_hangs_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(cli, "PATIENCE", 0.5)
    world.fault("*" if call == "--version" else call, "begin", "hang")
    found = run(AppleRuntime(table(world)).describe(), 10)
    assert not found.available
    assert f"`container {call}` did not answer within 0.5 s" in str(found.reason)
    assert found.remedy


def test_what_is_wrong_in_the_settings_is_told_at_once() -> None:
    wrong = {
        "command": "container",
        "image": "-x",
        "pull": "yes",
        "user": "node",
        "cpus": 1.5,
        "memory": "100m",
        "nope": 1,
    }
    with pytest.raises(ConfigError) as caught:
        AppleRuntime(wrong)
    for key in wrong:
        assert f"{key}: " in str(caught.value)
    assert "[runtimes.apple]" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("stderr", "said", "kind"),
    [
        (f"Error: {DOWN}\n{HINT}\n", DOWN, ContainerUnavailable),
        (
            "Error: XPC timeout for request to com.apple.container.apiserver/containerList",
            "XPC timeout for request to com.apple.container.apiserver/containerList",
            ContainerSilent,
        ),
        (
            "[1/6] Fetching image\nError: Unknown option '--x'\nUsage: container run\n  See 'c'",
            "Unknown option '--x'",
            ContainerError,
        ),
        ("noise\nmore noise\n", "more noise", ContainerError),
        ("", "it said nothing", ContainerError),
    ],
)
def test_words_and_their_meaning(stderr: str, said: str, kind: type[RuntimeFault]) -> None:
    assert words(stderr.encode()) == said
    error = failure(1, stderr.encode(), "ls")
    assert type(error) is kind
    assert error.remedy
    assert said in error.message


def test_noise_of_the_command_is_not_the_guests(world: World) -> None:
    world.fault("exec", "begin", "say", text="failed to send signal: [x]\n", repeat=3, call=2)

    async def work() -> None:
        async with session(world) as s:
            assert (await output(s, "sh", "-c", "echo mine >&2"))[2] == "mine\n"
            assert await shell(s, "echo next") == "next\n"

    run(work())


@pytest.mark.skipif(sys.platform == "darwin", reason="every Mac has launchd")
def test_without_launchd_the_services_listing_counts(world: World) -> None:
    (world.bin / "launchctl").unlink()

    async def work() -> None:
        async with session(world) as s:
            assert await shell(s, "echo here") == "here\n"
            assert s.name in await AppleRuntime(table(world)).list_instances(s.name.split("-")[1])

    run(work())
