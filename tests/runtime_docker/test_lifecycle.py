"""An instance from its creation to its end: hardened, mortal, and gone."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path
from typing import Any

import pytest

import claw_core
from claw_core.errors import Refused, RuntimeFault
from claw_core.isolation import Extent, Isolation
from claw_core.model import Audit, Image, Mount, Resources
from claw_runtime_docker.runtime import DockerRuntime
from cli.support import eventually
from runtime_docker import engines
from runtime_docker.engines import IMAGE, TestEngine, add_file
from runtime_docker.support import configured, output, run, session, shell


def test_a_container_is_hardened(engine: TestEngine) -> None:
    async def work() -> None:
        async with session(engine) as s:
            status = await shell(s, "cat /proc/self/status")
            facts = dict(line.split(":\t", 1) for line in status.splitlines())
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(facts[name], 16) == 0, name
            assert facts["NoNewPrivs"] == "1"
            assert facts["Seccomp"] == "2"
            assert "0" not in facts["Uid"].split()
            assert (await output(s, "touch", "/etc/x"))[0].code != 0
            assert "lo" in await shell(s, "cat /proc/net/dev")
            assert "eth0" not in await shell(s, "cat /proc/net/dev")
            found = engine.inspect(s.name)["HostConfig"]
            assert found["LogConfig"]["Type"] == "none"
            assert found["AutoRemove"]
            assert found["Init"]
            assert found["Memory"] == found["MemorySwap"] == 4 << 30
            assert found["PidsLimit"] == 1024
            assert s.route.assessment.isolation is Isolation.CONTAINER
            assert s.route.assessment.axes.limits is Extent.FULL
            assert s.route.assessment.network == "none"

    run(work())


def test_limits_are_what_was_asked_for(engine: TestEngine) -> None:
    async def work() -> None:
        resources = Resources(cpus=0.5, memory=64 << 20, processes=20)
        async with session(engine, resources=resources) as s:
            found = engine.inspect(s.name)["HostConfig"]
            assert (found["NanoCpus"], found["Memory"]) == (500_000_000, 64 << 20)
            program = (
                "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 9 & done"
            )
            ended, _, err = await output(s, "sh", "-c", program)
            assert ended.code != 0
            assert "fork" in err

    run(work())


def test_the_hardening_can_be_relaxed(engine: TestEngine) -> None:
    settings = {"user": "0", "read_only": False, "capabilities": ["CHOWN"]}

    async def work() -> None:
        async with session(engine, settings=settings) as s:
            assert await shell(s, "id -u; touch /etc/x && chown 7:7 /etc/x; stat -c %u /etc/x") == (
                "0\n7\n"
            )
            assert any("root of the container" in note for note in s.route.assessment.notes)

    run(work())


def test_mounts(engine: TestEngine, tmp_path: Path) -> None:
    for name in ("read", "write"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
        (tmp_path / name / "file").write_text(name)
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o755)

    async def work() -> None:
        mounts = [
            Mount(tmp_path / "read", "/data", authorised=True),
            Mount(tmp_path / "write", "/tmp/deep/write", writable=True, authorised=True),
        ]
        async with session(engine, mounts=mounts) as s:
            assert await shell(s, "pwd; cat file /tmp/deep/write/file") == "/data\nreadwrite"
            assert (await output(s, "touch", "/data/new"))[0].code != 0
            await shell(s, "echo made > /tmp/deep/write/new")

    run(work())
    assert (tmp_path / "write/new").read_text() == "made\n"
    assert (tmp_path / "write/new").stat().st_uid != 0


def test_secrets_are_in_the_environment_and_nowhere_else(engine: TestEngine, state: Path) -> None:
    canary = f"canary-{uuid.uuid4().hex}"
    value = f"{canary}'\n\"$HOME\\ ü\n"
    seen: list[object] = []

    async def work() -> list[str]:
        places = []
        options: dict[str, Any] = {"secrets": {"TOKEN": value, "EMPTY": ""}, "env": {"PLAIN": "x"}}
        async with session(engine, listener=seen.append, **options) as s:
            assert await shell(s, 'printf %s "$TOKEN"; printf %s "$PLAIN$EMPTY"') == f"{value}x"
            top = engine.call("GET", f"/containers/{s.name}/top", {"ps_args": "-ef"})
            places += [str(engine.inspect(s.name)), str(top), await shell(s, "ps")]
            places.append(await shell(s, "cat /proc/1/environ /proc/1/cmdline"))
            name = await s.snapshot(Audit("with a secret"))
            places.append(str(engine.call("GET", f"/images/{name}/json")))
        return places

    assert not any(canary in place for place in run(work()))
    assert canary not in engine.log
    assert canary not in str(seen)
    for place in (state, engine.directory):
        for folder, _, names in os.walk(place):
            for path in (Path(folder) / name for name in names):
                if path.is_file() and not path.is_symlink():
                    assert canary.encode() not in path.read_bytes(), path


def test_files_go_in_and_out(engine: TestEngine, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/data").write_bytes(os.urandom(1_000_000))
    (source / "run").write_text("#!/bin/sh\necho ran\n")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("deep")

    async def work() -> None:
        async with session(engine) as s:
            await s.upload(source, "/tmp/new/place")
            await s.upload(source, "relative")
            assert await shell(s, "/tmp/new/place/run; readlink ~/relative/link") == "ran\ndeep\n"
            await s.download("/tmp/new/place", tmp_path / "back")
            with pytest.raises(RuntimeFault, match="cannot pack /nope"):
                await s.download("/nope", tmp_path / "nope")
            with pytest.raises(RuntimeFault, match="cannot unpack into /etc"):
                await s.upload(source, "/etc/tree")

    run(work())
    data = (tmp_path / "back/deep/er/data").read_bytes()
    assert data == (source / "deep/er/data").read_bytes()


def test_an_image_made_of_an_instance_starts_as_the_one_it_came_from(engine: TestEngine) -> None:
    name = f"claw-test-made-{uuid.uuid4().hex[:8]}"
    settings = {"user": "0", "read_only": False}

    async def work() -> None:
        async with session(engine, settings=settings) as s:
            await shell(s, "echo kept > /etc/kept; echo lost > /tmp/lost")
            assert await s.snapshot(Image(name)) == f"{name}:latest"
        found = engine.call("GET", f"/images/{name}/json")[1]["Config"]
        original = engine.call("GET", f"/images/{IMAGE}/json")[1]["Config"]
        assert not found["Entrypoint"]
        assert (found["Cmd"], found["Env"]) == (original["Cmd"], original["Env"])
        async with session(engine, image=name) as s:
            assert await shell(s, "cat /etc/kept; ls /tmp") == "kept\n"

    run(work())
    assert engine.call("DELETE", f"/images/{name}")[0] == 200


def test_a_base_image_without_a_shell_is_told(engine: TestEngine) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        add_file(archive, "hello", b"x")
    engine.import_image(buffer.getvalue(), "claw-test-empty:1")

    async def work() -> None:
        async with session(engine, image="claw-test-empty:1"):
            raise AssertionError

    with pytest.raises(RuntimeFault, match="sh") as caught:
        run(work())
    assert "working `sh`" in str(caught.value.remedy) or "has `sh`" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("settings", "options", "why"),
    [
        ({"image": None}, {}, "no image is named"),
        ({}, {"image": "claw-test-missing:9"}, "no image claw-test-missing:9"),
        ({"pull": False}, {"image": "claw-test-missing:9"}, "pulling is switched off"),
        ({"oci_runtime": "kata"}, {}, "no OCI runtime kata"),
        ({}, {"network": "default"}, "no network bridge"),
        ({}, {"resources": Resources(cpus=999)}, "999 processors"),
        ({}, {"resources": Resources(memory=1000)}, "no less than 6 MiB"),
        ({}, {"secrets": {"a.b": "x"}}, "a shell cannot set"),
        (
            {},
            {"mounts": [Mount(Path("/tmp"), "/run", authorised=True)]},
            "cannot have a mount at /run",
        ),
        ({}, {"mounts": [Mount(Path("/tmp"), "/proc/x", authorised=True)]}, "mount at /proc/x"),
    ],
)
def test_what_cannot_be_had_is_refused_with_a_remedy(
    engine: TestEngine, settings: dict[str, Any], options: dict[str, Any], why: str
) -> None:
    table = {"host": engine.host, "image": IMAGE, **settings}
    table = {key: value for key, value in table.items() if value is not None}

    async def work() -> None:
        async with (
            claw_core.Router.open(config=configured(table)) as router,
            router.session(runtime="docker", **options),
        ):
            raise AssertionError

    with pytest.raises(Refused, match=why) as caught:
        run(work())
    assert caught.value.remedy


OWNER = """
import asyncio, os, sys, time
from claw_core.host import Host
from claw_core.intent import Intent
from claw_core.ledger import Ledger, default_state_directory
from claw_core.model import IO, Command, Instance, Spec
from claw_runtime_docker.runtime import DockerRuntime

async def main():
    ledger = Ledger.open(default_state_directory())
    settings = {"host": sys.argv[1], "image": sys.argv[2]}
    intent = Intent.new(ledger.install, "docker", settings)
    instance = Instance(intent.name, Spec(), Host(ledger.acquire(intent), "docker"))
    runtime = DockerRuntime(settings)
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
    engine: TestEngine, forked: list[str], state: Path
) -> None:
    argv = [sys.executable, "-W", "ignore", "-c", OWNER, engine.host, IMAGE, *forked]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        name, child = owner.stdout.readline().decode().split()
        assert name in engine.names()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        try:
            assert eventually(lambda: name not in engine.names(), 10)
        finally:
            if child != "0":
                os.kill(int(child), signal.SIGKILL)


def test_describe_says_what_there_is(engine: TestEngine) -> None:
    found = run(DockerRuntime({"host": engine.host}).describe())
    assert found.available
    assert found.isolation is Isolation.CONTAINER
    assert found.version
    assert set(found.details) == {"API", "storage", "cgroups", "image", "disk"}
    assert "claw image prepare docker" in found.details["image"]
    assert found.details["storage"].startswith(("vfs", "overlay2", "fuse-overlayfs"))
    assert "GiB free" in found.details["disk"]
    named = run(DockerRuntime({"host": engine.host, "image": IMAGE}).describe())
    assert named.details["image"] == f"{IMAGE} is there"
    absent = run(DockerRuntime({"host": engine.host, "image": "no:1", "pull": False}).describe())
    assert absent.details["image"] == "no:1 is not there"
    missing = run(DockerRuntime({"host": "unix:///nonexistent/x.sock"}).describe())
    assert not missing.available
    assert "no engine answers" in str(missing.reason)
    assert missing.remedy
    assert not run(DockerRuntime({"context": "claw-no-such-context"}).describe()).available


def test_several_sessions_at_once(engine: TestEngine) -> None:
    async def one(number: int) -> str:
        async with session(engine) as s:
            return await shell(s, f"echo {number}")

    async def work() -> list[str]:
        return await asyncio.gather(*(one(n) for n in range(6)))

    assert run(work()) == [f"{n}\n" for n in range(6)]


def test_a_network_is_there_only_when_it_is_asked_for() -> None:

    async def work(engine: TestEngine) -> None:
        async with session(engine, network="default") as s:
            assert "eth0" in await shell(s, "cat /proc/net/dev")
            assert s.route.assessment.network == "default"
            assert s.route.assessment.axes.net is Extent.NONE
        async with session(engine) as s:
            assert "eth0" not in await shell(s, "cat /proc/net/dev")
            assert s.route.assessment.axes.net is Extent.FULL

    with engines.private("bridge") as engine:
        run(work(engine))
