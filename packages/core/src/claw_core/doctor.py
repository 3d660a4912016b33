"""Whether what is installed and configured can work here, one finding for each thing."""

from __future__ import annotations

import platform
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final, Literal, TypeAlias

import attrs

from claw_core import events
from claw_core._version import __version__
from claw_core.config.config import Config
from claw_core.config.settings import merge
from claw_core.config.sources import RUNTIME_SECRETS
from claw_core.discovery import entry_points
from claw_core.errors import ClawError, PluginError
from claw_core.explanation import explain
from claw_core.ledger import Ledger, default_state_directory
from claw_core.observing import text_of
from claw_core.redaction import Redactor
from claw_core.registry import Registry, load_observers, load_plugin
from claw_core.router import Router
from claw_core.routing import table
from claw_core.tasks import in_thread
from claw_core.warden import Warden

PLUGINS: Final = "claw.doctor"
"""Entry points of other distributions: what takes a `Config` and yields findings about it."""

State: TypeAlias = Literal["ok", "note", "fail"]


@attrs.frozen
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what it is, for instance `runtime docker`.
        state: `ok`; `note` where something is broken or missing that nothing configured needs;
            `fail` where something that is configured cannot work.
        detail: what was found.
        remedy: what would change it.
    """

    subject: str
    state: State
    detail: str
    remedy: str | None = None


async def examine(config: Config) -> AsyncIterator[Finding]:
    """Look at everything; nothing is started but a warden, which ends again.

    Args:
        config: what is configured, its problems included.
    """
    redact = Redactor(_secrets(config))
    system = f"Python {platform.python_version()} on {sys.platform} {platform.machine()}"
    yield Finding("core", "ok", f"claw-core {__version__}, {system}")
    async for finding in _findings(config):
        remedy = finding.remedy and redact(finding.remedy)
        yield attrs.evolve(finding, detail=redact(finding.detail), remedy=remedy)


async def _findings(config: Config) -> AsyncIterator[Finding]:
    async for finding in _ledger(default_state_directory()):
        yield finding
    async for finding in _runtimes(config):
        yield finding
    for finding in _observers(config):
        yield finding
    for finding in _configuration(config):
        yield finding
    if not config.problems:
        async for finding in _routes(config):
            yield finding
    async for finding in _of_plugins(config):
        yield finding


def _secrets(config: Config) -> dict[str, str]:
    """The values of everything that anybody names as a secret."""
    named = [name for names in RUNTIME_SECRETS.values() for name in names]
    for source in (*config.defaults, *config.groups.values()):
        named += source.settings.secrets
    return {name: config.secrets[name] for name in named if name in config.secrets}


async def _ledger(state: Path) -> AsyncIterator[Finding]:
    try:
        ledger = await in_thread(Ledger.open, state)
        entries = await in_thread(ledger.scan)
    except ClawError as error:
        yield _failed("ledger", error)
        return
    dead = sum(entry.reapable for entry in entries)
    detail = f"{state}, install {ledger.install}, {len(entries)} instances"
    if dead:
        yield Finding("ledger", "note", f"{detail}, {dead} of dead owners", "claw reap")
    else:
        yield Finding("ledger", "ok", detail)
    try:
        warden = await Warden.start(ledger.state)
        await warden.close()
    except ClawError as error:
        yield _failed("warden", error)
    else:
        yield Finding("warden", "ok", "it can be started, and outlives its owner")


async def _runtimes(config: Config) -> AsyncIterator[Finding]:
    registry = Registry()
    for row in registry.rows():
        subject = f"runtime {row.name}"
        source = f"{row.distribution} {row.version}"
        if row.error is not None:
            yield Finding(subject, "note", f"{source}: {row.error.message}", row.error.remedy)
            continue
        try:
            settings = table(merge(*config.defaults), row.name)
            description = await registry.resolve(row.name, settings).describe()
        except ClawError as error:
            yield Finding(subject, "fail", f"{source}: {error.message}", error.remedy)
            continue
        parts = [source, description.version and f"version {description.version}"]
        if description.available:
            parts.append(f"{description.isolation.label} at best")
        parts.append(description.reason)
        detail = ", ".join(part for part in parts if part)
        state: State = "ok" if description.available and not description.remedy else "note"
        yield Finding(subject, state, detail, description.remedy)
        for name, text in description.details.items():
            yield Finding(f"{subject}: {name}", "ok", text)


def _observers(config: Config) -> Iterator[Finding]:
    broken: list[PluginError] = []
    found = load_observers(broken.append)
    required = set(config.required_observers)
    for name in found:
        how = " (required)" if name in required else ""
        yield Finding(f"observer {name}", "ok", f"holds every run{how}")
    for error in broken:
        state: State = "fail" if error.runtime in required else "note"
        yield Finding(f"plugin {error.runtime}", state, error.message, error.remedy)
    for name in sorted(required - set(found) - {str(error.runtime) for error in broken}):
        yield Finding(
            f"observer {name}",
            "fail",
            "it is required, and is not installed",
            "install it, or take it out of required_observers in claw.toml",
        )


def _configuration(config: Config) -> Iterator[Finding]:
    for problem in config.problems:
        yield Finding("configuration", "fail", problem, "correct that: nothing runs until then")
    if config.problems:
        return
    if config.file is not None:
        missing = "" if config.file.exists() else ", which does not exist"
        yield Finding("claw.toml", "ok", f"{config.file}{missing}")
    if config.root is not None and not config.root.is_dir():
        yield Finding("root", "fail", f"{config.root} is no directory", "correct --root")
    else:
        yield Finding("root", "ok", f"{config.root}, {len(config.group_names())} groups")


async def _routes(config: Config) -> AsyncIterator[Finding]:
    try:
        async with Router.open(config=config, listener=events.ignore) as router:
            for group in (None, *config.group_names()):
                yield await _route(router, group)
    except ClawError as error:
        yield _failed("routes", error)


async def _route(router: Router, group: str | None) -> Finding:
    subject = f"group {group}" if group else "no group"
    try:
        found = await explain(router, group)
    except ClawError as error:
        return _failed(subject, error)
    if found.trust:
        changes = ", ".join(found.trust)
        return Finding(subject, "fail", f"not accepted: {changes}", f"claw trust {group}")
    if found.refusal is not None:
        remedies = "; ".join(f"{one.runtime}: {one.refusal.remedy}" for one in found.candidates)
        return Finding(subject, "fail", found.refusal.message, remedies or found.refusal.remedy)
    return Finding(subject, "ok", found.sentence().partition(": ")[2])


async def _of_plugins(config: Config) -> AsyncIterator[Finding]:
    """What other distributions look at; one that is broken is a finding, and stops no other."""
    for name in dict.fromkeys(point.name for point in entry_points(PLUGINS)):
        try:
            async for finding in load_plugin(name, PLUGINS)(config):
                yield finding
        except ClawError as error:
            yield _failed(f"plugin {name}", error)
        except Exception as error:  # noqa: BLE001 - isolated, whatever a plugin does
            yield Finding(f"plugin {name}", "note", f"it failed: {text_of(error)}")


def _failed(subject: str, error: ClawError) -> Finding:
    return Finding(subject, "fail", error.message, error.remedy)
