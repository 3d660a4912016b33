"""From what an installation says of a group to what its instance shall be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from claw_core.agents import Agent
from claw_core.config.config import GROUP_NAME, Config, Group
from claw_core.config.documents import ContainerConfig
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
NOTHING: Final = Path(__file__).with_name("nothing")
"""An empty file."""


@attrs.frozen
class Plan:
    """What a group's instance shall be.

    Attributes:
        config: what is configured, with the mounts that NanoClaw's own list allows.
        agent: whom to ask.
        mounts: what is shown beside the group's folder.
        env: variables.
        seed: what the agent finds where nothing was ever kept.
        timeout: seconds without an output after which it is ended.
        ipc: the group's IPC directory, where there is one.
        notes: what the owner should know.
    """

    config: Config
    agent: Agent
    mounts: tuple[Mount, ...]
    env: dict[str, str]
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
        *layout.mounts(root, folder, NOTHING, main=main),
        *_additional(known, registered, policy, allowed, notes),
    )
    secrets = {**config.secrets, **run.given.secrets}
    ipc = root / "data" / "ipc" / folder
    return Plan(
        attrs.evolve(config, policy=policy, secrets=secrets),
        run.agent or _agent(config, folder, known),
        mounts,
        {"TZ": secrets["TZ"]} if secrets.get("TZ") else {},
        _seed(root, known),
        run.timeout or _timeout(config, group, registered),
        ipc if ipc.is_dir() else None,
        tuple(notes),
    )


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
