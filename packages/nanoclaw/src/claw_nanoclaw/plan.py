"""From what an installation says of a group to what its instance shall be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from claw_core.agents import Agent
from claw_core.config.config import GROUP_NAME, Config, Group
from claw_core.config.documents import EXTRA, ContainerConfig
from claw_core.config.parsers import Wrongs
from claw_core.config.settings import Duration
from claw_core.config.structure import structure
from claw_core.conversation import agent_named, configured_agent
from claw_core.errors import ConfigProblems
from claw_core.model import Mount
from claw_core.mounts import MountPolicy, NotGranted
from claw_nanoclaw import layout, timeouts
from claw_nanoclaw.allowlist import PLACE, AllowList
from claw_nanoclaw.database import Registered

if TYPE_CHECKING:
    from claw_nanoclaw.running import Run

AGENT: Final = "claude"
"""Who answers where nobody is named: NanoClaw's own agent."""
_TAKEN: Final = ("additionalMounts", "timeout")
"""What counts of a group's configuration in the database; the main group's agent can write it."""


@attrs.frozen
class Plan:
    """What a group's instance shall be.

    Attributes:
        config: what is configured, with the mounts that NanoClaw's own list allows.
        agent: whom to ask.
        mounts: what is shown beside the group's folder.
        env: variables.
        arguments: for the agent.
        seed: what the agent finds where nothing was ever kept.
        timeout: seconds without an output after which it is ended.
        ipc: the group's IPC directory, where there is one.
        notes: what the owner should know.
    """

    config: Config
    agent: Agent
    mounts: tuple[Mount, ...]
    env: dict[str, str]
    arguments: tuple[str, ...]
    seed: dict[str, Path]
    timeout: float
    ipc: Path | None
    notes: tuple[str, ...] = ()


def plan(run: Run) -> Plan:
    """Return what a run's instance shall be.

    Raises:
        ConfigProblems: all that is wrong in what is configured, registered and allowed.
        ConfigError: there is no such group or agent, or the database cannot be read.
    """
    installation, folder = run.installation, run.folder
    root, config = installation.root, installation.config
    group = config.group(folder)
    known = installation.groups().get(folder) or Registered(folder, folder, f"groups/{folder}")
    main = known.is_main if run.given.is_main is None else run.given.is_main
    allowed = AllowList.load()
    policy = allowed.policy(config.policy, main=main)
    notes = list(_passed_over(known))
    registered = _structured(known)
    mounts = (
        *_shown(layout.mounts(root, folder, main=main), policy, notes),
        *_additional(known, registered, policy, allowed, notes),
    )
    secrets = {**config.secrets, **run.given.secrets}
    ipc = root / "data" / "ipc" / folder
    agent = run.agent or _agent(config, folder, known)
    env, arguments = _memory(agent, mounts, main=main)
    if secrets.get("TZ"):
        env["TZ"] = secrets["TZ"]
    return Plan(
        attrs.evolve(config, policy=policy, secrets=secrets),
        agent,
        mounts,
        env,
        arguments,
        _seed(root, known),
        run.timeout or _timeout(config, group, registered),
        ipc if ipc.is_dir() else None,
        tuple(notes),
    )


def _shown(mounts: Iterable[Mount], policy: MountPolicy, notes: list[str]) -> Iterator[Mount]:
    """What is shown of the installation; what is never shown to anybody is left out, and said."""
    for mount in mounts:
        try:
            yield policy.resolve(mount)
        except NotGranted as error:
            notes.append(f"not shown to the group: {error}")


def _passed_over(known: Registered) -> Iterator[str]:
    for key in sorted(set(known.config) - set(_TAKEN)):
        yield f"{known.where}: {key} is not taken from there; set it in claw.toml"


def _structured(known: Registered) -> ContainerConfig:
    """What the database has of a group, as far as it counts."""
    taken = {key: known.config[key] for key in _TAKEN if key in known.config}
    try:
        return structure(taken, ContainerConfig)
    except Wrongs as error:
        problems = [problem.removeprefix(".") for problem in error.problems]
        raise ConfigProblems.of([f"{known.where}: {one}" for one in problems]) from None


def _additional(
    known: Registered,
    registered: ContainerConfig,
    policy: MountPolicy,
    allowed: AllowList,
    notes: list[str],
) -> list[Mount]:
    """The mounts that the database has of a group, read-only where only that is allowed."""
    granted, problems = [], []
    for number, wanted in enumerate(registered.additional_mounts):
        place = f"{known.where}: additionalMounts[{number}]"
        mount = wanted.mount()
        try:
            granted.append(policy.resolve(attrs.evolve(mount, writable=False)))
        except NotGranted as error:
            lacking = "" if allowed.exists else f"; {PLACE} does not exist, so it allows nothing"
            problems.append(f"{place}: {error} (allow it in {PLACE}{lacking})")
            continue
        if mount.writable:
            try:
                granted[-1] = policy.resolve(mount)
            except NotGranted as error:
                notes.append(f"{place}: read-only, although more is asked for: {error}")
    if problems:
        raise ConfigProblems.of(problems)
    return granted


def _agent(config: Config, folder: str, known: Registered) -> Agent:
    own = config.groups.get(folder)
    if (own is None or own.settings.agent is None) and known.provider:
        return agent_named(known.provider)
    return configured_agent(config, folder) or agent_named(AGENT)


def _memory(
    agent: Agent, mounts: Iterable[Mount], *, main: bool
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Let `claude` know the folders beside the group's own, and what their CLAUDE.md say."""
    folders = [
        mount.target
        for mount in mounts
        if mount.source.is_dir()
        and (mount.target.startswith(f"{EXTRA}/") or (mount.target == layout.GLOBAL and not main))
    ]
    if agent.name != AGENT or not folders:
        return {}, ()
    return {"CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD": "1"}, ("--add-dir", *folders)


def _seed(root: Path, known: Registered) -> dict[str, Path]:
    """What NanoClaw itself has kept of the group's `claude`."""
    if known.identity is None or not GROUP_NAME.fullmatch(known.identity):
        path = root / "data" / "sessions" / known.folder / ".claude"
    else:
        path = root / "data" / "v2-sessions" / known.identity / ".claude-shared"
    return {".claude": path} if path.is_dir() and not path.is_symlink() else {}


def _timeout(config: Config, group: Group, registered: ContainerConfig) -> float:
    """Seconds without an output: what `claw.toml` says, else NanoClaw's rule."""
    own = config.groups.get(group.name)
    if own is not None and own.settings.timeout is not None:
        return own.settings.timeout
    said = group.file.settings.timeout if group.file else None
    if said is None and registered.timeout is not None:
        said = Duration(registered.timeout / 1000)
    if said is None and group.merged.settings.timeout is not None:
        return group.merged.settings.timeout
    return timeouts.limit(config.secrets, said)
