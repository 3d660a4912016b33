"""An instance from its creation to its end: a virtual machine of its own, mortal, and gone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

import claw_core
from claw_core.errors import Refused, RuntimeFault
from claw_core.isolation import Extent, Isolation
from claw_core.model import Audit, Image, Mount, Resources
from claw_runtime_apple.runtime import AppleRuntime
from cli.support import eventually
from runtime_apple.support import configured, names, output, run, session, shell, table
from simulators.container.world import IMAGE, World


def inspect(world: World, name: str) -> Any:
    return json.loads(world.run("inspect", name).stdout)[0]["configuration"]


def test_a_container_is_made_as_it_was_asked_for(world: World) -> None:
    async def work() -> None:
        async with session(world, resources=Resources(memory=300 << 20, cpus=1.5)) as s:
            found = inspect(world, s.name)
            assert found["labels"] == {
                "claw.install": s.name.split("-")[1],
                "claw.instance": s.name,
            }
            assert found["resources"]["cpus"] == 1
            assert found["resources"]["memoryInBytes"] == 300 << 20
            assert found["networks"] == []
            assert s.route.assessment.isolation is Isolation.VM
            assert s.route.assessment.network == "none"
            assert s.route.assessment.axes.net is Extent.FULL
        async with session(world, network="default") as s:
            found = inspect(world, s.name)
            assert [one["network"] for one in found["networks"]] == ["default"]
            assert found["resources"]["memoryInBytes"] == 4 << 30
            assert found["resources"]["cpus"] == min(4, os.cpu_count() or 1)
            assert s.route.assessment.axes.net is Extent.NONE

    run(work())


def test_commands_are_the_callers_and_the_first_process_is_roots(world: World) -> None:
    async def work() -> None:
        async with session(world, settings={"user": "1234:56"}) as s:
            assert await shell(s, "id -u; id -g; cd; pwd; touch x") == "1234\n56\n/home/agent\n"
            assert await shell(s, "stat -c %u /proc/1") == "0\n"
            assert await shell(s, "cd /workspace && touch x && touch /tmp/x && echo ok") == "ok\n"
            assert (await output(s, "touch", "/etc/x"))[0].code != 0
            await shell(s, "kill -9 1 2>/dev/null || true")
            assert await shell(s, "echo alive") == "alive\n"

    run(work())


def test_processes_can_be_limited(world: World) -> None:
    async def work() -> None:
        options: dict[str, Any] = {
            "settings": {"user": "2345"},
            "resources": Resources(processes=20),
        }
        async with session(world, **options) as s:
            program = "n=0; while [ $n -lt 40 ]; do sleep 9 >&- 2>&- & n=$((n + 1)); done"
            ended, _, err = await output(s, "sh", "-c", program)
            assert ended.code != 0
            assert "fork" in err

    run(work())


def test_mounts(world: World, tmp_path: Path) -> None:
    for name in ("read", "write"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "alone").write_text("one file")
    (tmp_path / "alone").chmod(0o600)
    (tmp_path / "beside").write_text("nobody asked for it")

    async def work() -> None:
        mounts = [
            Mount(tmp_path / "read", "/data", authorised=True),
            Mount(tmp_path / "write", "/workspace/deep", writable=True, authorised=True),
            Mount(tmp_path / "alone", "/etc/deep/alone", authorised=True),
        ]
        async with session(world, mounts=mounts) as s:
            assert await shell(s, "pwd; cat file /workspace/deep/file") == "/data\nreadwrite"
            assert (await output(s, "touch", "/data/new"))[0].code != 0
            await shell(s, "echo made > /workspace/deep/new")
            assert await shell(s, "cat /etc/deep/alone") == "one file"
            assert await shell(s, "ls -A /etc/deep") == "alone\n"
            assert "nobody asked" not in await shell(s, "cat /proc/mounts")
            assert any("is a copy of" in note for note in s.route.assessment.notes)
            mounted = inspect(world, s.name)["mounts"]
            assert {one["destination"] for one in mounted} == {"/data", "/workspace/deep"}

    run(work())
    assert (tmp_path / "write/new").read_text() == "made\n"
    assert (tmp_path / "read").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "write").stat().st_mode & 0o7777 == 0o755


def test_a_mount_over_scratch_space_is_not_touched(world: World, tmp_path: Path) -> None:
    for name in ("workspace", "home"):
        (tmp_path / name).mkdir(mode=0o700)

    async def work() -> None:
        mounts = [
            Mount(tmp_path / "workspace", "/workspace", writable=True, authorised=True),
            Mount(tmp_path / "home", "/home", writable=True, authorised=True),
        ]
        async with session(world, mounts=mounts, workdir="/tmp") as s:
            assert await shell(s, "echo ok") == "ok\n"

    run(work())
    for name in ("workspace", "home"):
        assert (tmp_path / name).stat().st_mode & 0o7777 == 0o700
        assert list((tmp_path / name).iterdir()) == []


def test_secrets_are_in_the_environment_and_nowhere_else(world: World, state: Path) -> None:
    canary = f"canary-{uuid.uuid4().hex}"
    value = f"{canary}'\n\"$HOME\\ ü\n"
    seen: list[object] = []

    async def work() -> list[str]:
        places = []
        options: dict[str, Any] = {"secrets": {"TOKEN": value, "EMPTY": ""}, "env": {"PLAIN": "x"}}
        async with session(world, listener=seen.append, **options) as s:
            assert await shell(s, 'printf %s "$TOKEN"; printf %s "$PLAIN$EMPTY"') == f"{value}x"
            places.append(str(inspect(world, s.name)))
            places.append(await shell(s, "cat /proc/1/environ /proc/1/cmdline"))
            places.append(world.run("logs", s.name).stdout.decode())
            await s.snapshot(Audit("with a secret"))
        return places

    assert not any(canary in place for place in run(work()))
    assert world.holding(canary) == []
    assert not any(canary in word for call in world.journal() for word in call.argv)
    assert canary not in str(seen)
    for folder, _, files in os.walk(state):
        for path in (Path(folder) / name for name in files):
            if path.is_file():
                assert canary.encode() not in path.read_bytes(), path


def test_files_go_in_and_out(world: World, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/data").write_bytes(os.urandom(20_000_000))  # more than is under way at once
    (source / "run").write_text("#!/bin/sh\necho ran\n")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("deep")

    async def work() -> None:
        async with session(world, settings={"user": "1234"}) as s:
            await s.upload(source, "/tmp/new/place")
            await s.upload(source / "run", "relative/run")
            assert await shell(s, "/tmp/new/place/run; stat -c %u ~/relative/run") == "ran\n1234\n"
            await s.download("/tmp/new/place", tmp_path / "back")
            with pytest.raises(RuntimeFault, match="cannot pack /nope"):
                await s.download("/nope", tmp_path / "nope")
            with pytest.raises(RuntimeFault, match="cannot unpack into /etc"):
                await s.upload(source, "/etc/tree")
            assert await shell(s, "echo still here") == "still here\n"

    run(work())
    data = (tmp_path / "back/deep/er/data").read_bytes()
    assert data == (source / "deep/er/data").read_bytes()
    assert (tmp_path / "back/link").is_symlink()


def test_an_image_made_of_an_instance_starts_as_the_one_it_came_from(
    world: World, tmp_path: Path
) -> None:
    world.image("claw-test:env", Env=["PATH=/usr/bin:/bin", "FROM=image"], Cmd=["sleep", "5"])
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted/inside").write_text("of the host")

    async def work() -> None:
        mounts = [Mount(tmp_path / "mounted", "/usr/deep/mounted", authorised=True)]
        async with session(world, image="claw-test:env", mounts=mounts) as s:
            await shell(s, "echo kept > /etc/kept; echo beside > /usr/deep/beside")
            await shell(s, "echo lost > /tmp/lost; echo lost > ~/lost; chmod 700 ~")
            assert await s.snapshot(Image("claw-test-made")) == "claw-test-made:latest"
        async with session(world, image="claw-test-made") as s:
            assert await shell(s, "cat /etc/kept /usr/deep/beside; echo $FROM") == (
                "kept\nbeside\nimage\n"
            )
            assert await shell(s, "ls -A /tmp ~; stat -c %a ~") == "/home/agent:\n\n/tmp:\n1777\n"
            assert await shell(s, "ls -A /usr/deep/mounted 2>/dev/null || true") == ""

    run(work())
    found = json.loads(world.run("image", "inspect", "claw-test-made").stdout)[0]
    made = found["variants"][0]["config"]
    assert made["config"]["Cmd"] == ["sleep", "5"]
    assert made["architecture"] == "arm64"


def test_an_audit_is_kept_under_its_label(world: World) -> None:
    async def work() -> None:
        async with session(world) as s:
            await shell(s, "echo done > /home/agent/work; echo lost > /tmp/lost")
            kept = await s.snapshot(Audit("odd / label"))
            assert kept == f"claw-audit:odd-label-{s.name.removeprefix('claw-')}"
        async with session(world, image=kept) as s:
            assert await shell(s, "cat /home/agent/work; ls -A /tmp") == "done\n"

    run(work())


def test_a_base_image_without_a_shell_is_told(world: World) -> None:
    world.image("claw-test:empty")
    (record,) = (one for name, one in world.mac.load("images.json").items() if "empty" in name)
    for program in Path(record["root"]).rglob("bin/*"):
        program.unlink()

    async def work() -> None:
        async with session(world, image="claw-test:empty"):
            raise AssertionError

    with pytest.raises(RuntimeFault, match="failed to find target executable sh") as caught:
        run(work())
    assert "has `sh`" in str(caught.value.remedy)
    assert names(world) == set()


OWNER = """
import asyncio, os, sys, time
from claw_core.host import Host
from claw_core.intent import Intent
from claw_core.ledger import Ledger, default_state_directory
from claw_core.model import IO, Command, Instance, Spec
from claw_runtime_apple.runtime import AppleRuntime

async def main():
    ledger = Ledger.open(default_state_directory())
    settings = {"command": sys.argv[1], "image": sys.argv[2]}
    intent = Intent.new(ledger.install, "apple", settings)
    instance = Instance(intent.name, Spec(), Host(ledger.acquire(intent), "apple"))
    runtime = AppleRuntime(settings)
    await runtime.prepare(instance)
    await runtime.start(instance)
    child = 0
    if len(sys.argv) > 3 and (child := os.fork()) == 0:
        time.sleep(600)
    async def told(data):
        print(instance.name, child, flush=True)
    program = "trap '' TERM INT HUP; (setsid sleep 700 &); echo up; while :; do sleep 600; done"
    await runtime.execute(instance, Command(("sh", "-c", program)), IO(None, told, told))

asyncio.run(main())
"""
"""Runs a command without a warden, so that only the dead-man's switch is left."""


@pytest.mark.parametrize("forked", [[], ["fork"]])
def test_a_container_ends_with_its_owner_without_any_reaper(
    world: World, forked: list[str], state: Path
) -> None:
    program = str(world.bin / "container")
    argv = [sys.executable, "-W", "ignore", "-c", OWNER, program, IMAGE, *forked]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        name, child = owner.stdout.readline().decode().split()
        assert name in names(world)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        try:
            assert eventually(lambda: name not in names(world), 10)
            assert eventually(lambda: world.processes() == {}, 10)
        finally:
            if child != "0":
                os.kill(int(child), signal.SIGKILL)


def test_describe_says_what_there_is(world: World) -> None:
    found = run(AppleRuntime(table(world)).describe())
    assert found.available
    assert found.isolation is Isolation.VM
    assert found.version == "1.2.2"
    assert found.details["service"] == "runs"
    assert found.details["image"] == f"{IMAGE} is there"
    command = str(world.bin / "container")
    agent = run(AppleRuntime({"command": command}).describe())
    assert "claw image prepare apple" in agent.details["image"]
    absent = run(AppleRuntime({"command": command, "image": "no:1", "pull": False}).describe())
    assert absent.details["image"] == "no:1 is not there"


def test_starts_take_turns(world: World) -> None:
    world.configure(boot_seconds=0.3)

    async def one(number: int) -> str:
        async with session(world) as s:
            return await shell(s, f"echo {number}")

    async def work() -> list[str]:
        return await asyncio.gather(*(one(n) for n in range(4)))

    assert run(work()) == [f"{n}\n" for n in range(4)]
    starts = sorted((c.start, c.end or time.time()) for c in world.journal() if c.argv[0] == "run")
    boots = [(start, start + 0.3) for start, _ in starts]
    for start, _ in boots:
        assert sum(begin <= start < end for begin, end in boots) <= 2


def test_nothing_is_pulled_unless_it_is_missing(world: World) -> None:
    world.image("example.org/some:1", registry=True)
    world.configure(online=True)

    async def work() -> None:
        async with session(world, image="example.org/some:1") as s:
            assert any("pulled first" in note for note in s.route.assessment.notes)
            assert await shell(s, "echo here") == "here\n"
        async with session(world, image="example.org/some:1") as s:
            assert s.route.assessment.notes == ()

    run(work())
    assert world.pulls() == ["example.org/some:1"]


@pytest.mark.parametrize(
    ("settings", "options", "why"),
    [
        ({"image": None}, {}, "no image is named"),
        ({"pull": False}, {"image": "claw-test:missing"}, "pulling is switched off"),
        ({}, {"image": "--help"}, "cannot be the name of an image"),
        ({}, {"resources": Resources(cpus=0.5)}, "whole ones"),
        ({}, {"resources": Resources(cpus=999)}, "999 processors"),
        ({}, {"resources": Resources(memory=1000)}, "no less than 200 MiB"),
        ({}, {"resources": Resources(memory=1 << 50)}, "more memory"),
        ({"user": "0"}, {"resources": Resources(processes=9)}, "root's processes"),
        ({}, {"secrets": {"a.b": "x"}}, "no shell can set"),
        ({}, {"env": {"a-b": "x"}}, "no shell can set"),
        ({}, {"mounts": [("d", "/proc/x", False)]}, "cannot have a mount at /proc/x"),
        ({}, {"mounts": [("d", "/", True)]}, "cannot have a mount at /"),
        ({}, {"mounts": [("a,b", "/x", False)]}, "splits at"),
        ({}, {"mounts": [("f", "/x", True)]}, "all its directory would be shared"),
        ({}, {"mounts": [("d", "/x", True), ("f", "/x/f", False)]}, "copied into the mount /x"),
    ],
)
def test_what_cannot_be_had_is_refused_with_a_remedy(
    world: World, tmp_path: Path, settings: dict[str, Any], options: dict[str, Any], why: str
) -> None:
    for name in ("d", "a,b"):
        (tmp_path / name).mkdir()
    (tmp_path / "f").write_text("")
    asked = dict(options)
    if "mounts" in asked:
        asked["mounts"] = [
            Mount(tmp_path / name, target, writable=writable, authorised=True)
            for name, target, writable in asked["mounts"]
        ]
    chosen = {key: value for key, value in table(world, **settings).items() if value is not None}

    async def work() -> None:
        async with (
            claw_core.Router.open(config=configured(chosen)) as router,
            router.session(runtime="apple", **asked),
        ):
            raise AssertionError

    with pytest.raises(Refused, match=why) as caught:
        run(work())
    assert caught.value.remedy
    assert not [call for call in world.journal() if call.argv[0] == "run"]
