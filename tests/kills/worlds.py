"""The worlds in which runs are killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from claw_core.ledger import Ledger
from claw_core.local.runtime import LocalRuntime
from kills.harness import World
from runtime_docker.engines import IMAGE, TestEngine
from simulators.container.world import IMAGE as APPLE_IMAGE
from simulators.container.world import World as Mac
from simulators.tart.world import Simulator


def local(state: Path) -> World:
    def listing() -> frozenset[str]:
        install = Ledger.open(state).install
        return asyncio.run(LocalRuntime({}).list_instances(install))

    # With a limit there is a control group to be left behind.
    return World("local", ("--memory", "512m"), {}, listing, "local.post-ready")


def tart(host: Simulator) -> World:
    def listing() -> set[str]:
        """Directories of machines and locks that are held, as the host itself sees them."""
        return {*host.vms(), *host.running(), *(" ".join(argv) for argv in arguments(host))}

    return World("tart", (), {}, listing, "tart.post-clone")


def arguments(host: Simulator) -> list[list[str]]:
    """Of every process of a host that is alive."""
    return [str(value).split() for value in host.processes().values()]


def docker(engine: TestEngine) -> World:
    options = ("--image", IMAGE)
    return World("docker", options, {"DOCKER_HOST": engine.host}, engine.names, "docker.pre-create")


def apple(mac: Mac) -> World:
    env = {"PATH": mac.environment["PATH"]}
    return World("apple", ("--image", APPLE_IMAGE), env, mac.containers, "apple.post-run")
