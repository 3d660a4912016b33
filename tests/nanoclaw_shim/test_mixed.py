"""One installation, each group on a runtime of its own, behind NanoClaw's own command lines."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.support import entries, eventually
from nanoclaw_shim import recordings
from nanoclaw_shim.world import World
from runtime_docker.engines import TestEngine
from runtime_tart import worlds
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


def test_each_group_gets_its_own_runtime(
    engine: TestEngine, mac: Simulator, base: Path, state: Path
) -> None:
    """Apple's part of the set-up, `CONTAINER_RUNTIME=container` for all others, is only routed."""
    world = World.make(base, engine, "finance", "personal", "others")
    world.config.write_text(TOML.format(leases=mac.leases))
    (world.root / ".env").write_text(
        "CONTAINER_RUNTIME=container\nTART_BASE_IMAGE=with-claude\nANTHROPIC_API_KEY=sk-of-the-owner\n"
    )
    world = World(world.root, world.config, world.folder, engine, f"{mac.bin}:{os.environ['PATH']}")

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

    # Everybody else is on Apple's runtime: not here, and nothing weaker takes its place.
    done = world.docker(*recordings.v1(world.root, "others"))
    assert done.returncode == 125
    assert b"apple" in done.stderr


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
