"""One installation, each group on a runtime of its own, behind NanoClaw's own command lines."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.support import entries, eventually
from nanoclaw_shim import recordings
from nanoclaw_shim.world import RUNNER, World
from runtime_apple import worlds as macs
from runtime_docker.engines import TestEngine
from runtime_tart import worlds
from simulators.container.world import World as Apple
from simulators.tart.world import Simulator

CLAUDE = """#!/bin/sh
prompt=$(cat)
echo '{"type":"system","subtype":"init","session_id":"s-mac"}'
printf '{"type":"result","subtype":"success","session_id":"s-mac","result":"%s: %s"}\\n' \
    "$(id -un) in $(ls -d /workspace/group)" "$prompt"
"""
"""An agent's command, as somebody has installed it in the guest."""
FINANCE = "nanoclaw-finance-1764355200000"
TOML = """
[groups.finance]
runtime = "tart"
[groups.personal]
runtime = "docker"
[runtimes.tart]
leases = "{leases}"
"""


@pytest.fixture
def mac() -> Iterator[Simulator]:
    """A host with Tart, whose image has an agent."""
    with worlds.opened() as host:
        disk = host.base("with-claude", "darwin")
        program = Path(disk) / "usr/bin/claude"
        program.write_text(CLAUDE)
        program.chmod(0o755)
        yield host


@pytest.fixture
def apple(base: Path) -> Iterator[Apple]:
    """A host with Apple's container, which has NanoClaw's image."""
    with macs.opened(base / "mac") as host:
        (base / "mac").chmod(0o755)
        host.image(
            "nanoclaw-agent:latest",
            files={"/app/entrypoint.sh": RUNNER.encode()},
            Entrypoint=["sh", "/app/entrypoint.sh"],
            WorkingDir="/workspace/group",
        )
        yield host


def test_each_group_gets_its_own_runtime(
    engine: TestEngine, mac: Simulator, apple: Apple, base: Path, state: Path
) -> None:
    world = World.make(base, engine, "finance", "personal", "others")
    world.config.write_text(TOML.format(leases=mac.leases))
    (world.root / ".env").write_text(
        "CONTAINER_RUNTIME=container\nTART_BASE_IMAGE=with-claude\nANTHROPIC_API_KEY=sk-of-the-owner\n"
    )
    path = f"{mac.bin}:{apple.bin}:{os.environ['PATH']}"
    world = World(world.root, world.config, world.folder, engine, path)

    done = world.docker(
        *recordings.v1(world.root, "personal"), stdin=recordings.message("personal", "hi")
    )
    assert done.returncode == 0, done.stderr
    assert recordings.outputs(done.stdout)[0]["result"] == "one"

    client = _asked(world)
    stopped = world.docker("stop", "-t", "1", FINANCE)
    assert stopped.returncode == 0, stopped.stderr
    _nothing_is_left(world, mac, state)
    client.communicate(timeout=60)
    assert client.returncode == 143

    # Everybody else is on Apple's container.
    done = world.docker(
        *recordings.v1_apple(world.root, "others"),
        stdin=recordings.message("others", "touch"),
        tool="container",
    )
    assert done.returncode == 0, done.stderr
    assert recordings.outputs(done.stdout)[0]["result"] == "one"
    assert done.stderr.startswith(b"runner: /home/node Europe/Vienna\n")
    assert (world.root / "groups/others/note").read_text() == "placeholder\n"
    assert apple.containers() == {}
    assert entries(state) == []


def test_a_group_of_apples_container_cannot_find_dockers_host(
    apple: Apple, base: Path, state: Path
) -> None:
    world = World.make(base, None, "others")
    (world.root / ".env").write_text("CONTAINER_RUNTIME=container\n")
    path = f"{apple.bin}:{os.environ['PATH']}"
    world = World(world.root, world.config, world.folder, None, path)
    done = world.docker(*recordings.v1(world.root, "others"))
    assert done.returncode == 125
    assert b"a name of Docker's alone" in done.stderr
    assert b"nothing was started" in done.stderr
    assert not [call for call in apple.journal() if call.argv[0] == "run"]


def test_nothing_outlives_a_client_of_a_virtual_machine(
    mac: Simulator, base: Path, state: Path
) -> None:
    world = World.make(base, None, "finance", toml=TOML.format(leases=mac.leases))
    (world.root / ".env").write_text("TART_BASE_IMAGE=with-claude\n")
    world = World(world.root, world.config, world.folder, None, f"{mac.bin}:{os.environ['PATH']}")
    client = _asked(world)
    client.kill()
    client.communicate()
    for name in world.names():
        assert world.docker("stop", "-t", "1", name).returncode == 0
    _nothing_is_left(world, mac, state)


def _asked(world: World) -> subprocess.Popen[bytes]:
    """The client of a container whose agent has answered, and waits for more."""
    client = world.start(
        *recordings.v1(world.root, "finance"), stdin=recordings.message("finance", "hi")
    )
    assert client.stdout is not None
    first = b"".join(client.stdout.readline() for _ in range(3))
    assert recordings.outputs(first) == [
        {
            "status": "success",
            "result": "admin in /workspace/group: <messages>hi</messages>",
            "newSessionId": "s-mac",
        }
    ]
    assert world.names() == [FINANCE]
    return client


def _nothing_is_left(world: World, mac: Simulator, state: Path) -> None:
    assert eventually(lambda: entries(state) == [], 30)
    assert mac.running() == {}
    assert world.names() == []
