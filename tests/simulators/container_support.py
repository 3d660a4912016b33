"""Short ways to say things to the simulated `container`."""

from __future__ import annotations

import json
from typing import Any

from simulators.container.world import IMAGE, World

QUIET = ("--progress", "none")


def running(world: World, *options: str, name: str = "one", argv: tuple[str, ...] = ()) -> str:
    """Start a container that does nothing."""
    command = argv or ("sleep", "1000")
    done = world.run("run", "-d", *QUIET, "--name", name, *options, IMAGE, *command)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}\n".encode(), b"")
    return name


def listed(world: World, *options: str) -> dict[str, Any]:
    """What `ls` says of each container that is no stranger's."""
    done = world.run("ls", *options, "--format", "json")
    assert done.returncode == 0, done.stderr
    found = {one["configuration"]["id"]: one for one in json.loads(done.stdout)}
    return {name: one for name, one in found.items() if name in world.containers()}


def said(world: World, *argv: str, stdin: bytes | None = None) -> tuple[int, str, str]:
    """Run a command to its end."""
    done = world.run(*argv, stdin=stdin)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def error(world: World, *argv: str) -> str:
    """What a command says that fails with 1."""
    code, out, err = said(world, *argv)
    assert (code, out) == (1, ""), (code, out, err)
    assert err.startswith("Error: ")
    return err.removeprefix("Error: ").rstrip("\n")
