"""What `claw nanoclaw status` finds: routes, the shim, the service, what is left of the past."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from claw_core import tools
from claw_core.config.config import Config
from claw_core.config.settings import AUTO, Settings, Source
from claw_core.doctor import Finding, State
from claw_core.errors import ClawError
from claw_core.explanation import explain
from claw_core.known import canonical
from claw_core.router import Router
from claw_core.tasks import in_thread
from claw_nanoclaw.shim import answers, executable, installation, service, support
from claw_nanoclaw.shim.records import Records
from claw_nanoclaw.shim.running import DEFAULTS, ORIGIN

LISTING_TIMEOUT: Final = 10.0
"""Seconds that the real command has to list what it has."""


async def examine(root: Path, config: Path | None) -> AsyncIterator[Finding]:
    """Look at an installation; nothing is started, and nothing is changed.

    Args:
        root: its directory.
        config: the `claw.toml` that decides; None is the user's own.
    """
    version = installation.version(root)
    yield Finding("NanoClaw", "ok", f"{version or 'of an unknown version'} in {root}")
    for finding in _shim(root):
        yield finding
    async for finding in _groups(root, config):
        yield finding
    async for finding in _containers(root):
        yield finding


async def findings(config: Config) -> AsyncIterator[Finding]:
    """What `claw doctor` says of an installation beside its groups; nothing where there is none.

    Args:
        config: what is configured; its root may be an installation.
    """
    if config.root is None or not installation.is_one(config.root):
        return
    for finding in _shim(config.root):
        yield finding
    async for finding in _containers(config.root):
        yield finding


def _shim(root: Path) -> Iterator[Finding]:
    services = list(service.found(root))
    if not services:
        yield Finding("service", "note", "none is installed for it", _first(root))
    for one in services:
        command = executable.found_by(one.path, "docker")
        if command is None:
            yield Finding(f"service {one.file.name}", "fail", "no docker on its PATH", _first(root))
        elif not executable.is_shim(command):
            detail = f"its PATH leads to {command}: claw decides nothing"
            yield Finding(f"service {one.file.name}", "fail", detail, _first(root))
        elif str(root) not in command.read_text():
            detail = f"{command} is the shim of another installation"
            yield Finding(f"service {one.file.name}", "fail", detail, _first(root))
        else:
            yield Finding(f"service {one.file.name}", "ok", f"its PATH leads to {command}")


def _first(root: Path) -> str:
    first = root / executable.FOLDER
    return f"claw nanoclaw shim --dir {root}, then put {first} first on the PATH of the service"


async def _groups(root: Path, path: Path | None) -> AsyncIterator[Finding]:
    config = Config.load(path=path, root=root)
    for problem in config.problems:
        yield Finding("configuration", "fail", problem, "correct that: nothing runs until then")
    if config.problems:
        return
    for name in config.group_names():
        try:
            for finding in await _group(root, path, name):
                yield finding
        except ClawError as error:
            yield Finding(f"group {name}", "fail", error.message, error.remedy)


async def _group(root: Path, path: Path | None, name: str) -> list[Finding]:
    """Which runtime a group gets and why, and what its own file has to do with it."""
    merged = Config.load(path=path, root=root).group(name).merged
    named = canonical(merged.settings.runtime or DEFAULTS["docker"])
    kind = installation.layout(root, name)
    if named != AUTO:
        support.require(kind, named, name)
    config = Config.load(path=path, root=root)
    if named == AUTO or support.support(kind, named).way == "image":
        image = installation.image(root)
        own = Settings(runtime=named, image=image, network="default")
        config.defaults += (Source(own, ORIGIN),)
    async with Router.open(config=config) as router:
        found = await explain(router, name)
    findings = []
    if found.trust:
        remedy = f"claw trust {name} --root {root}"
        detail = f"its config.json asks for more than was accepted: {', '.join(found.trust)}"
        findings.append(Finding(f"group {name}", "fail", detail, remedy))
    elif found.route is None:
        refusal = found.candidates[0].refusal if found.candidates else None
        detail = found.sentence().partition(": ")[2]
        remedies = refusal.remedy if refusal else found.refusal.remedy if found.refusal else None
        findings.append(Finding(f"group {name}", "fail", detail, remedies))
    else:
        detail = found.sentence().partition(": ")[2]
        way = support.support(kind, found.route.runtime)
        state: State = "fail" if way.way == "no" else "ok"
        findings.append(Finding(f"group {name}", state, f"{detail}; {way.why}"))
    own_file = f"groups/{name}/config.json"
    decided = [
        key for key, value in found.merged.values.items() if value.origin.startswith(own_file)
    ]
    if decided:
        findings.append(
            Finding(
                f"group {name}: its own file",
                "note",
                f"its agent can write {own_file}, which decides {', '.join(sorted(decided))}; what "
                "weakens it later is refused",
                f"set them in [groups.{name}] of claw.toml, which it cannot write",
            )
        )
    return findings


async def _containers(root: Path) -> AsyncIterator[Finding]:
    """What is there under NanoClaw's names: of clients that were killed, and of Docker itself."""
    for one in await in_thread(answers.containers, Records(), str(root)):
        subject = f"container {one.record.name}"
        if one.running:
            yield Finding(subject, "ok", f"running for group {one.record.group}")
        else:
            yield Finding(subject, "note", "its client was killed; claw removes it", "claw reap")
    real = _real(root)
    if real is None:
        return
    try:
        done = await tools.run(
            (real, "ps", "-a", "--filter", "name=nanoclaw-", "--format", "{{.Names}}|{{.Status}}"),
            timeout=LISTING_TIMEOUT,
        )
    except ClawError as error:
        yield Finding("containers of the past", "note", error.message, error.remedy)
        return
    for line in done.stdout.decode(errors="replace").splitlines():
        name, _, state = line.partition("|")
        if name.startswith("nanoclaw-"):
            detail = f"{state}; it was started without claw, and nobody removes it"
            yield Finding(f"container {name}", "note", detail, f"{real} rm -f {name}")


def _real(root: Path) -> str | None:
    """A `docker` that is no shim."""
    paths = [os.environ.get("PATH", os.defpath), *(one.path for one in service.found(root))]
    found = executable.real(os.pathsep.join(paths), "docker")
    return None if found is None else str(found)
