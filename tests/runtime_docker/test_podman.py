"""The same runtime on a real Podman, whose socket differs in details."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from claw_core.errors import DeadlineExceeded, RuntimeFault
from claw_core.host import Host
from claw_core.intent import Intent
from claw_core.keeping import Keeping
from claw_core.ledger import Ledger
from claw_core.model import Audit, Instance, Spec
from claw_core.router import Router
from claw_runtime_docker.runtime import DockerRuntime
from cli.support import claw, entries, eventually, start
from runtime_docker.engines import TestEngine
from runtime_docker.support import configured, gather, output, processes, run, session, shell
from runtime_docker.test_commands import DAEMONS
from runtime_docker.test_lifecycle import OWNER

IMAGE = "claw-test:latest"


def test_a_session(podman: TestEngine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("up and down")

    async def work() -> None:
        options: dict[str, Any] = {"image": IMAGE, "secrets": {"TOKEN": "a\nb"}}
        async with session(podman, **options) as s:
            ended, out, err = await output(s, "sh", "-c", "cat; echo no >&2; exit 9", stdin=b"in")
            assert (ended.code, out, err) == (9, "in", "no\n")
            assert await shell(s, 'printf %s "$TOKEN"; id -u') != "0\n"
            assert (await output(s, "nope"))[0].code == 127
            status = await shell(s, "cat /proc/self/status")
            assert "CapBnd:\t0000000000000000" in status
            assert "NoNewPrivs:\t1" in status
            assert (await output(s, "touch", "/etc/x"))[0].code != 0
            await s.upload(tmp_path / "file", "/tmp/new/file")
            await s.download("/tmp/new/file", tmp_path / "back")
            found = await gather(*(output(s, "sh", "-c", f"exit {n}") for n in range(8)))
            assert [ended.code for ended, _, _ in found] == list(range(8))

    run(work())
    assert (tmp_path / "back").read_text() == "up and down"


def test_a_deadline_leaves_no_process(podman: TestEngine) -> None:
    async def work() -> None:
        async with session(podman, image=IMAGE) as s:
            with pytest.raises(DeadlineExceeded):
                await output(s, "sh", "-c", DAEMONS, timeout=1)
            assert processes(podman, s.name) == []

    run(work())


def test_a_container_ends_with_its_owner(podman: TestEngine, state: Path) -> None:
    argv = [sys.executable, "-c", OWNER, podman.host, IMAGE]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        name, _ = owner.stdout.readline().decode().split()
        assert name in podman.names()
        owner.send_signal(signal.SIGKILL)
    assert eventually(lambda: name not in podman.names(), 20)


def test_a_name_that_is_taken_is_told_and_given_free(podman: TestEngine, state: Path) -> None:
    """Podman says 500, and not 409."""

    async def work() -> None:
        ledger = Ledger.open(state)
        runtime = DockerRuntime({"host": podman.host, "image": IMAGE})
        intent = Intent.new(ledger.install, "docker", runtime.settings)
        with ledger.acquire(intent) as lease:
            subject = Instance(intent.name, Spec(), Host(lease, "docker"))
            await runtime.prepare(subject)
            with pytest.raises(RuntimeFault, match="in use"):
                await DockerRuntime(runtime.settings).prepare(subject)
            await asyncio.gather(
                *(DockerRuntime(runtime.settings).teardown(subject) for _ in range(3))
            )
            assert subject.name not in podman.names()

    run(work())


@pytest.mark.parametrize("point", ["docker.pre-create", "docker.post-create", "docker.pre-start"])
def test_a_kill_leaves_nothing(podman: TestEngine, state: Path, point: str) -> None:
    env = {**os.environ, "DOCKER_HOST": podman.host, "CLAW_FAILPOINT": f"{point}=kill"}
    with start("run", "-r", "docker", "--image", IMAGE, "--", "true", env=env) as process:
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    until = time.monotonic() + 60
    while entries(state) and time.monotonic() < until:
        claw("reap")
    assert entries(state) == []
    assert not [name for name in podman.names() if name.startswith("claw-")]


def test_there_is_no_network_by_default(podman: TestEngine) -> None:
    async def work() -> None:
        async with session(podman, image=IMAGE) as s:
            assert "eth0" not in await shell(s, "cat /proc/net/dev")

    run(work())


def test_what_is_kept(podman: TestEngine) -> None:
    """A snapshot from its listing to its end, and a container that is stopped and started."""
    table = {"host": podman.host, "image": IMAGE}

    async def work() -> None:
        async with session(podman, image=IMAGE, keeping=Keeping(snapshot="on-failure")) as s:
            await shell(s, "echo kept > $HOME/marker; id -u > /workspace/who")
            name = await s.snapshot(Audit("a"))
            assert s.record.snapshot == name == f"claw-audit:a-{s.name.removeprefix('claw-')}"
        install = s.name.split("-")[1]
        runtime = DockerRuntime(table)
        (listed,) = await runtime.list_snapshots(install)
        assert (listed.name, listed.instance) == (name, s.name)
        async with session(podman, image=name) as s:
            assert await shell(s, "cat $HOME/marker /workspace/who") != "kept\n0\n"
            with pytest.raises(RuntimeFault, match="in use"):
                await runtime.delete_snapshot(name)
        for _ in "12":
            await runtime.delete_snapshot(name)
        assert await runtime.list_snapshots(install) == frozenset()

    run(work())

    async def keep() -> None:
        async with Router.open(config=configured(table)) as router:
            keeping = Keeping(instance="always")
            async with router.session(runtime="docker", keeping=keeping) as s:
                await shell(s, "echo kept > $HOME/marker")
            assert s.record.teardown == "held"
            assert podman.inspect(s.name)["State"]["Running"] is False
            (entry,) = router.ledger.scan()
            async with router.reopen(entry, keeping=Keeping()) as s:
                assert await shell(s, "cat $HOME/marker") == "kept\n"
            assert s.name not in podman.names()

    run(keep())
