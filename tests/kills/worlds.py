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


def local(state: Path) -> World:
    def listing() -> frozenset[str]:
        install = Ledger.open(state).install
        return asyncio.run(LocalRuntime({}).list_instances(install))

    # With a limit there is a control group to be left behind.
    return World("local", ("--memory", "512m"), {}, listing, "local.post-ready")


def docker(engine: TestEngine) -> World:
    options = ("--image", IMAGE)
    return World("docker", options, {"DOCKER_HOST": engine.host}, engine.names, "docker.pre-create")


def apple(mac: Mac) -> World:
    env = {"PATH": mac.environment["PATH"]}
    return World("apple", ("--image", APPLE_IMAGE), env, mac.containers, "apple.post-run")
