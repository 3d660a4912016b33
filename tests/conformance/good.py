"""A small runtime that keeps the contract: a directory per instance, and marked processes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from claw_core.errors import ConfigError, TeardownFailed
from claw_core.hookspecs import Runtime
from claw_core.isolation import Isolation
from claw_core.model import (
    IO,
    Assessment,
    Command,
    Description,
    Exit,
    Image,
    Instance,
    Refusal,
    Resources,
    Snapshot,
    SnapshotTarget,
    Spec,
)
from claw_core.search import search_in
from claw_core.tasks import in_thread, persist

MARK = "CLAW_TEST_INSTANCE"
"""A variable that every process of an instance has, for as long as it keeps its environment."""
ENTER = 'cd "$0" && cd "$1" && shift && exec "$@"'
"""Where its directory is gone, a late command does not begin."""


class Good(Runtime):
    """Plain processes of the caller. The setting `place` is where the directories are."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        if "place" not in settings:
            raise ConfigError("no place is set", remedy="set `place`")
        self.place = Path(settings["place"])

    async def describe(self) -> Description:
        return Description(True, "1", isolation=Isolation.NONE)

    async def assess(self, spec: Spec) -> Assessment | Refusal:
        moved = any(str(m.source) != m.target or not m.writable for m in spec.mounts)
        if moved or spec.network == "none" or spec.resources != Resources():
            return Refusal("it isolates nothing", "leave it out")
        if spec.image is not None and not self.image(spec.image).is_dir():
            return Refusal(f"there is no image {spec.image}", "make a snapshot first")
        return Assessment(Isolation.NONE)

    async def prepare(self, instance: Instance) -> None:
        self.place.mkdir(exist_ok=True)
        if instance.spec.image is None:
            self.home(instance).mkdir()
        else:
            await in_thread(
                shutil.copytree, self.image(instance.spec.image), self.home(instance), symlinks=True
            )

    async def start(self, instance: Instance) -> None:
        """Every command is a process of its own."""

    async def execute(self, instance: Instance, command: Command, io: IO) -> Exit:
        home = self.home(instance)
        env = {"PATH": os.environ["PATH"], "HOME": str(home), **instance.spec.env}
        env |= {name: instance.host.secret(name) for name in instance.spec.secrets}
        env |= {**command.env, MARK: f"{instance.name}:{os.urandom(4).hex()}"}
        program = command.argv[0]
        if shutil.which(program, path=env["PATH"]) is None:
            there = "/" in program and Path(program).exists()
            return Exit(126 if there else 127, reason=f"{program}: cannot be executed")
        workdir = command.workdir or instance.spec.workdir or "."
        argv = ("sh", "-c", ENTER, str(home), workdir, *command.argv)
        try:
            done = await instance.host.stream(argv, io, env=env)
        finally:
            await persist(end(env[MARK]))
        return Exit.from_wait(done.code)

    async def teardown(self, instance: Instance) -> None:
        home, gone = self.home(instance), self.home(instance).with_suffix(".gone")
        with contextlib.suppress(FileNotFoundError):
            home.rename(gone)
        await end(instance.name)
        await in_thread(shutil.rmtree, gone, ignore_errors=True)
        if instance.name in await self.list_instances(instance.name.split("-")[1]):
            raise TeardownFailed("it is still there")

    async def list_instances(self, install: str) -> frozenset[str]:
        found = await in_thread(marked, f"claw-{install}-")
        names = {value.partition(":")[0] for value in found.values()}
        if self.place.exists():
            names |= {entry.name.removesuffix(".gone") for entry in self.place.iterdir()}
        return frozenset(name for name in names if name.startswith(f"claw-{install}-"))

    async def snapshot(self, instance: Instance, target: SnapshotTarget) -> str:
        name = target.name if isinstance(target, Image) else f"{instance.name}@{target.slug}"
        await in_thread(shutil.copytree, self.home(instance), self.image(name), symlinks=True)
        return name

    async def list_snapshots(self, install: str) -> frozenset[Snapshot]:
        entries = self.place.iterdir() if self.place.exists() else ()
        names = (entry.name.removeprefix("image-") for entry in entries)
        mine = (name for name in names if name.startswith(f"claw-{install}-") and "@" in name)
        return frozenset(Snapshot(name, name.partition("@")[0]) for name in mine)

    async def delete_snapshot(self, name: str) -> None:
        await in_thread(shutil.rmtree, self.image(name), ignore_errors=True)

    async def search(self, instance: Instance, texts: tuple[str, ...]) -> frozenset[str]:
        paths = [str(path) for path in self.home(instance).rglob("*")]
        return await search_in(functools.partial(self.execute, instance), paths, texts)

    async def stop(self, instance: Instance) -> None:
        await end(instance.name)

    def home(self, instance: Instance) -> Path:
        return self.place / instance.name

    def image(self, name: str) -> Path:
        return self.place / f"image-{name.replace('/', '-')}"


def marked(prefix: str) -> dict[int, str]:
    """Processes whose mark begins so."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                for variable in (entry / "environ").read_bytes().split(b"\0"):
                    name, _, value = variable.partition(b"=")
                    if name == MARK.encode() and value.startswith(prefix.encode()):
                        found[int(entry.name)] = value.decode()
    return found


async def end(prefix: str) -> None:
    """Kill what is marked, until two looks find nothing."""
    quiet = 0
    while quiet < 2:
        found = await in_thread(marked, prefix)
        quiet = 0 if found else quiet + 1
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if found:
            await asyncio.sleep(0.005)
