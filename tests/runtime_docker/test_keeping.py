"""What is kept of containers: snapshots, and containers themselves, on a real engine."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from claw_core import metadata
from claw_core.keeping import Keeping
from claw_core.ledger import Ledger
from claw_core.model import Audit, Image
from claw_runtime_docker.runtime import DockerRuntime
from cli.console import Console
from cli.support import claw, entries, eventually, start
from runtime_docker.engines import IMAGE, TestEngine
from runtime_docker.support import run, session, shell

SECRET = "hunter2-hunter2"


@pytest.fixture
def environment(engine: TestEngine, state: Path) -> Iterator[Mapping[str, str]]:
    """Of every claw process; afterwards no snapshot of this test is there any more."""
    yield {"DOCKER_HOST": engine.host, "SECRET": SECRET}
    for known in metadata.read(state)[0]:
        engine.call("DELETE", f"/images/{known.name}", {"force": 1})


def kept_run(env: Mapping[str, str], *options: str, program: str) -> Any:
    """A run of `claw --json` whose snapshot is taken."""
    done = claw(
        *("run", "--json", "-r", "docker", "--image", IMAGE, *options),
        *("--", "sh", "-c", program),
        env=env,
        cwd=Path("/"),
    )
    return json.loads(done.stdout), done


def listed(env: Mapping[str, str]) -> Any:
    return json.loads(claw("snapshots", "list", "--json", env=env).stdout)


def test_a_snapshot_from_the_run_to_its_deletion(
    engine: TestEngine, environment: Mapping[str, str]
) -> None:
    env = environment
    program = "echo $SECRET > leaked; echo work > ~/work; echo $SECRET > /tmp/gone; exit 3"
    shown, done = kept_run(env, "--snapshot", "on-failure", "--secret", "SECRET", program=program)
    assert (done.returncode, shown["teardown"]) == (3, "gone")
    name = shown["snapshot"]
    assert name == f"claw-audit:run-{shown['instance'].removeprefix('claw-')}"
    said = done.stderr.decode()
    assert f"{name} holds a secret of the run, in /workspace/leaked" in said
    (row,) = listed(env)
    assert (row["name"], row["exit"], row["runtime"], row["image"]) == (name, 3, "docker", IMAGE)
    assert row["found_in"] == ["/workspace/leaked"]
    assert row["searched"] == ["SECRET"]
    assert 0 < row["size"] < 1 << 20
    for told in (said, json.dumps(row), str(engine.call("GET", f"/images/{name}/json")[1])):
        assert SECRET not in told
    opened = claw("snapshots", "open", name, env=env)
    assert opened.stdout.decode() == f"claw run -r docker --image {name} -- COMMAND\n"
    # The home is on the disk of whatever starts from it.
    looked = claw("run", "-r", "docker", "--image", name, "--", "cat", "/home/agent/work", env=env)
    assert looked.stdout == b"work\n", looked.stderr
    deleted = claw("snapshots", "delete", shown["instance"].rpartition("-")[2], env=env)
    assert deleted.stdout.decode() == f"deleted {name}\n"
    assert listed(env) == []
    assert name not in engine.images()


def test_one_that_is_in_use_stays_and_is_said(
    engine: TestEngine, environment: Mapping[str, str]
) -> None:
    env = environment
    shown, _ = kept_run(env, "--snapshot", "always", program=":")
    name = shown["snapshot"]
    with start(
        *("run", "-r", "docker", "--image", name, "--", "sh", "-c", "echo in; sleep 60"),
        env={**os.environ, **env},
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"in\n"
        done = claw("snapshots", "delete", name, env=env)
        assert done.returncode == 125
        assert f"{name} is in use".encode() in done.stderr
        assert [row["name"] for row in listed(env)] == [name]
        user.terminate()
        user.communicate(timeout=30)
    assert claw("snapshots", "delete", name, env=env).returncode == 0


def test_limits_of_the_configuration_hold_after_each_run(
    engine: TestEngine, environment: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "claw.toml").write_text("[snapshots]\nkeep = 1\n")
    options = ("--config", str(tmp_path / "claw.toml"), "--snapshot", "always")
    first, _ = kept_run(environment, *options, program=":")
    second, done = kept_run(environment, *options, program=":")
    assert f"the snapshot {first['snapshot']} is deleted: no more than 1 are kept" in str(
        done.stderr
    )
    assert [row["name"] for row in listed(environment)] == [second["snapshot"]]
    assert first["snapshot"] not in engine.images()


def test_a_snapshot_that_is_not_wanted_any_more_does_not_hold_up_the_teardown(
    engine: TestEngine, state: Path
) -> None:
    """The engine is in the middle of it when its container is removed."""

    async def work() -> None:
        async with session(engine, keeping=Keeping(snapshot="always")) as s:
            await shell(s, "dd if=/dev/zero of=$HOME/large bs=1M count=300 2>&1")

    async def cancelled() -> None:
        task = asyncio.create_task(work())
        while not metadata.read(state)[0]:
            await asyncio.sleep(0.01)
        task.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(cancelled())
    assert entries(state) == []
    install = Ledger.open(state).install
    assert [name for name in engine.names() if install in name] == []
    # Whether it came all the same is the engine's choice; then it is found, and can be deleted.
    env = {"DOCKER_HOST": engine.host}
    for row in listed(env):
        assert claw("snapshots", "delete", row["name"], env=env).returncode == 0
    assert listed(env) == []


def test_snapshots_of_an_image_are_not_those_of_its_base(engine: TestEngine) -> None:
    async def work() -> None:
        async with session(engine) as s:
            audit = await s.snapshot(Audit("base"))
        async with session(engine, image=audit) as s:
            image = await s.snapshot(Image("claw-test-derived"))
        runtime = DockerRuntime({"host": engine.host})
        install = s.name.split("-")[1]
        assert {one.name for one in await runtime.list_snapshots(install)} == {audit}
        await runtime.delete_snapshot(audit)
        assert await runtime.list_snapshots(install) == frozenset()
        assert engine.call("DELETE", f"/images/{image}")[0] == 200

    run(work())
    assert eventually(lambda: "claw-test-derived:latest" not in engine.images())


def ps(env: Mapping[str, str]) -> Any:
    return json.loads(claw("ps", "--json", env=env).stdout)


def test_a_container_that_is_kept_is_entered_and_deleted(
    engine: TestEngine, environment: Mapping[str, str], state: Path
) -> None:
    env = environment
    program = "echo work > ~/work; echo $SECRET > /tmp/secret; exit 7"
    shown, done = kept_run(env, "--keep", "always", "--secret", "SECRET", program=program)
    assert (done.returncode, shown["teardown"]) == (7, "held")
    name = shown["instance"]
    said = done.stderr.decode()
    assert f"enter it with `claw shell {name}`, delete it with `claw reap {name}`" in said
    assert engine.inspect(name)["State"]["Running"] is False
    (row,) = ps(env)
    assert (row["name"], row["state"], row["alive"]) == (name, "held", False)
    assert row["until"] == pytest.approx(shown["kept_until"], abs=0.01)
    assert claw("reap", env=env).returncode == 0
    assert name in engine.names()
    refused = claw("exec", name, "--", "true", env=env)
    assert f"enter it with `claw shell {name}`" in refused.stderr.decode()
    with Console("shell", "-q", "-e", "ONE=two", name, env=env) as console:
        console.press(b"cat ~/work; echo $ONE; ls /tmp | wc -l; exit 5\n")
        assert console.ends() == 5
        words = bytes(console.said).split()
    assert words[-3:] == [b"work", b"two", b"0"], words
    assert engine.inspect(name)["State"]["Running"] is False
    assert [row["state"] for row in ps(env)] == ["held"]
    planned = json.loads(claw("reap", "--dry-run", "--json", name, env=env).stdout)
    assert [row["result"] for row in planned] == ["delete"]
    assert claw("reap", name[-12:], env=env).returncode == 0
    assert name not in engine.names()
    assert entries(state) == []


def test_a_container_that_is_entered_can_be_torn_down_at_the_end(
    engine: TestEngine, environment: Mapping[str, str], state: Path
) -> None:
    shown, _ = kept_run(environment, "--keep", "always", program=":")
    name = shown["instance"]
    refused = claw("shell", "--memory", "1g", name, env=environment)
    assert refused.returncode == 2
    assert b"--memory cannot be changed" in refused.stderr
    with Console("shell", "-q", "--keep", "never", name, env=environment) as console:
        console.press(b"exit\n")
        assert console.ends() == 0
    assert name not in engine.names()
    assert entries(state) == []
