"""What `claw run` takes on its command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs

from claw_core import units
from claw_core.errors import ConfigError
from claw_core.model import Mount, Network, Resources
from claw_core.request import WORKSPACE


def mount(text: str) -> Mount:
    """A mount of the command line, which authorises itself.

    Raises:
        ConfigError: it is none.
    """
    source, target, writable = units.mount(text)
    return Mount(Path(source).absolute(), target, writable=writable, authorised=True)


def pair(text: str) -> tuple[str, str]:
    """Two paths of which one is on the host.

    Raises:
        ConfigError: it is none.
    """
    left, colon, right = text.partition(":")
    if not (colon and left and right):
        raise ConfigError(f"expected SRC:DST, got {text!r}", remedy="name both paths")
    return left, right


def variable(text: str) -> tuple[str, str]:
    """A variable and its value, which may be the caller's own.

    Raises:
        ConfigError: it is none.
    """
    name, equals, value = text.partition("=")
    if not name:
        raise ConfigError(f"expected NAME=VALUE, got {text!r}", remedy="name the variable")
    if not equals and name not in os.environ:
        raise ConfigError(f"{name} is not set", remedy=f"set {name}, or write {name}=VALUE")
    return name, value if equals else os.environ[name]


def secret(name: str) -> str:
    """The name of a secret.

    Raises:
        ConfigError: it is none.
    """
    if "=" in name:
        raise ConfigError(
            "expected the name of a secret, got an assignment",
            remedy="put the value into the environment: an argument is visible to every process",
        )
    return name


@attrs.frozen
class Options:
    """What the command line asks for."""

    command: tuple[str, ...]
    config: Path | None
    root: Path | None
    events: Path | None
    group: str | None
    agent: str | None
    prompt: str | None
    session: str | None
    stdio: bool
    runtime: str | None
    image: str | None
    mounts: tuple[Mount, ...]
    uploads: tuple[tuple[str, str], ...]
    downloads: tuple[tuple[str, str], ...]
    variables: tuple[tuple[str, str], ...]
    secrets: tuple[str, ...]
    network: Network | None
    cpus: float | None
    memory: int | None
    processes: int | None
    timeout: float | None
    idle_timeout: float | None
    workdir: str | None
    tty: bool
    json: bool
    quiet: bool
    verbose: bool

    @property
    def asks(self) -> bool:
        """Whether an agent is to answer, and COMMAND has further arguments for it."""
        named = (self.agent, self.prompt, self.session) != (None, None, None)
        return self.stdio or named or not self.command

    def asked(self) -> dict[str, Any]:
        """What an instance shall be, as `Router.session` takes it; without the group."""
        return {
            "runtime": self.runtime,
            "image": self.image,
            "mounts": self.mounts,
            "env": dict(self.variables),
            "secrets": self.secrets,
            "network": self.network,
            "resources": Resources(self.cpus, self.memory, self.processes),
            "workdir": self.workdir,
        }

    def check(self) -> None:
        """Refuse early what would otherwise fail after the command has run.

        Raises:
            ConfigError: a path does not exist, a download has no place to go, there is no terminal,
                or options cannot go together.
        """
        if self.tty and self.asks:
            raise ConfigError(
                "an agent that is asked has no terminal",
                remedy="leave `-t` out, or run `claw shell`",
            )
        if self.tty:
            from claw_core.cli import terminal  # most runs have none

            terminal.require(json=self.json)
        for source, _ in self.uploads:
            if not os.path.lexists(source):
                raise ConfigError(
                    f"cannot upload {source!r}: it does not exist", remedy="correct the path"
                )
        for source, target in self.downloads:
            from claw_core import archive  # most runs move no files

            archive.destination(Path(target), source.rstrip("/").rpartition("/")[2])

    def workspace(self) -> Path | None:
        """The working directory, unless an upload goes where it would be seen."""
        if any(f"{target}/".startswith(f"{WORKSPACE}/") for _, target in self.uploads):
            return None
        try:
            return Path.cwd()
        except FileNotFoundError:
            return None  # it was deleted under us
