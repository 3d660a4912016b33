"""What the host tells a launcher about the instance to make; the two sides share this module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

MARKER: Final = "CLAW_INSTANCE"
"""Variable in the environment of every payload, with the name of its instance."""
SANDBOX_USER: Final = 65533
"""Who root's payloads are: a number that neither Debian nor systemd gives to anybody."""
HOME: Final = "/home/agent"
WORKSPACE: Final = "/workspace"
SCRATCH: Final = ("/tmp", "/var/tmp", "/run", "/dev/shm", HOME, WORKSPACE)  # noqa: S108 - inside the sandbox
"""Writable places of a sandbox; they share one tmpfs, so that one size bounds them all."""


class Failure(Exception):
    """The instance cannot be had as asked; both texts are for the user."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class Setup(NamedTuple):
    """One instance.

    Attributes:
        name: of the instance.
        engine: `namespaces` or `guard`.
        uid: user that the payload is, outside and inside.
        gid: group that the payload is.
        become: whether the launcher is root and has to become that user.
        mounts: `source`, `target`, `writable`, and `owner`: uid and gid of the source.
        prefixes: where the interpreter lives.
        share_network: whether the host's network is used.
        memory: bytes, or None.
        limit_data: whether memory is bounded per process, because there is no cgroup.
        processes: number of processes.
        env: environment of every payload.
        workdir: where payloads start.
        scratch: the guard engine's private directory.
        moved: target -> where it really is, for mounts that the guard engine leaves in place.
    """

    name: str
    engine: str
    uid: int
    gid: int
    become: bool
    mounts: tuple[dict[str, Any], ...]
    prefixes: tuple[str, ...]
    share_network: bool
    memory: int | None
    limit_data: bool
    processes: int
    env: dict[str, str]
    workdir: str
    scratch: str = ""
    moved: Mapping[str, str] = {}

    def encode(self) -> bytes:
        """For the way to the launcher; surrogates of undecodable paths survive it."""
        return json.dumps(self._asdict()).encode()

    @classmethod
    def decode(cls, data: bytes) -> Setup:
        """Read what `encode` wrote."""
        value = json.loads(data)
        value["mounts"], value["prefixes"] = tuple(value["mounts"]), tuple(value["prefixes"])
        return cls(**value)
