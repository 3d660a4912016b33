"""From what a caller asks for, and what is configured, to what exactly an instance shall be."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from claw_core.config.config import WORKSPACE_GROUP, Config, Group, raise_if
from claw_core.config.settings import Merged, Settings, Size, Source, Variables
from claw_core.config.sources import RUNTIME_SECRETS
from claw_core.model import Mount, Network, Resources, Spec
from claw_core.mounts import MountPolicy, NotGranted, home

if TYPE_CHECKING:
    from claw_core.agents import Agent

WORKSPACE: Final = "/workspace"
ASKED: Final = "asked for"
"""The origin of what a caller says himself, on a command line or in a program."""


def asked_for(
    runtime: str | None = None,
    image: str | None = None,
    mounts: Iterable[Mount] = (),
    env: Mapping[str, str] | None = None,
    secrets: Iterable[str] = (),
    network: Network | None = None,
    resources: Resources | None = None,
    workdir: str | None = None,
) -> Source:
    """What a caller asks for, as the strongest of all sources."""
    resources = resources or Resources()
    settings = Settings(
        runtime=runtime,
        image=image,
        network=network,
        cpus=resources.cpus,
        memory=None if resources.memory is None else Size(resources.memory),
        processes=resources.processes,
        workdir=workdir,
        secrets=tuple(secrets),
        mounts=tuple(mounts),
        env=Variables(dict(env or {})),
    )
    return Source(settings, ASKED)


def needed_by(agent: Agent, available: Mapping[str, str], given: Iterable[str]) -> Source:
    """What an agent needs where nobody says otherwise, as the weakest of all sources.

    Args:
        agent: the agent.
        available: name -> value of everything that may be a secret.
        given: names of variables that are set already.
    """
    settings = Settings(
        network="default",
        secrets=tuple(
            name for name in agent.secrets if available.get(name) and name not in set(given)
        ),
        env=Variables(agent.env),
    )
    return Source(settings, f"the agent {agent.name}")


def folder_mount(group: Group) -> Mount:
    """The folder of a group, as its instances see it."""
    return Mount(group.folder, WORKSPACE_GROUP, writable=True, relocatable=True, authorised=True)


def workspace_mount(policy: MountPolicy, directory: Path, merged: Merged) -> Mount | None:
    """A directory that nobody asked for, read-only at `/workspace`; None where it has no place.

    It is left out where something else goes to `/workspace` or below, and where it is the home
    directory, the root, or may not be mounted.
    """
    mount = Mount(directory, WORKSPACE, relocatable=True, authorised=True)
    places = (posixpath.normpath(one.target) for one in merged.settings.mounts)
    if any(f"{place}/".startswith(f"{WORKSPACE}/") for place in places):
        return None
    try:
        found = policy.resolve(mount)
    except NotGranted:
        return None
    return None if str(found.source) in {"/", home()} else found


def spec_for(
    policy: MountPolicy, merged: Merged, group: str | None = None, implicit: Mount | None = None
) -> Spec:
    """Return the spec that the settings amount to, every mount resolved and granted.

    Mounts come in the order of their depth, so that none covers another. Commands start in the one
    that core makes itself, unless somebody says otherwise.

    Args:
        policy: decides about mounts.
        merged: the settings.
        group: name of the group.
        implicit: a mount that core makes itself, granted already.

    Raises:
        ConfigProblems: mounts that are not granted, variables that cannot be; all of them.
    """
    settings = merged.settings
    problems = list(_variable_problems(merged))
    granted = []
    workdir = settings.workdir
    if implicit is not None and f"mounts.{implicit.target}" not in merged.values:
        granted.append(implicit)
        workdir = workdir or implicit.target
    for mount in settings.mounts:
        try:
            granted.append(policy.resolve(mount))
        except NotGranted as error:
            origin = merged.origin(f"mounts.{posixpath.normpath(mount.target)}")
            problems.append(f"{origin}: {error} ({error.remedy})")
    raise_if(problems)
    return Spec(
        group=group,
        image=settings.image,
        mounts=tuple(sorted(granted, key=_depth)),
        env=settings.env,
        secrets=settings.secrets,
        network=settings.network,
        resources=Resources(settings.cpus, settings.memory, settings.processes),
        workdir=workdir,
    )


def granted_of(group: Group, merged: Merged, spec: Spec) -> dict[str, str]:
    """Target -> real source, of the mounts of a spec that a group's own file asks for."""
    asked = group.file.settings.mounts if group.file else ()
    values = [one.value for one in merged.values.values() if isinstance(one.value, Mount)]
    own = {mount.target for mount in asked if any(mount is value for value in values)}
    return {mount.target: str(mount.source) for mount in spec.mounts if mount.target in own}


def _depth(mount: Mount) -> int:
    return posixpath.normpath(mount.target).rstrip("/").count("/")


def secret_values(
    config: Config, merged: Merged, runtime: str, given: Mapping[str, str]
) -> dict[str, str]:
    """The values of a run's secrets, and of those that the runtime itself needs.

    Args:
        config: has the environment and `.env`.
        merged: the settings, which name the secrets.
        runtime: name of the runtime.
        given: values that the caller passes himself.

    Raises:
        ConfigProblems: every secret that nobody has set.
    """
    available = {**config.secrets, **given}
    names = merged.settings.secrets
    raise_if(
        [
            f"{merged.origin(f'secrets.{name}')}: the secret {name} is set neither in the "
            "environment nor in .env"
            for name in names
            if name not in available
        ]
    )
    wanted = (*names, *RUNTIME_SECRETS.get(runtime, ()))
    return {name: available[name] for name in wanted if name in available}


def _variable_problems(merged: Merged) -> Iterator[str]:
    settings = merged.settings
    for key, name, value in (
        *((f"env.{name}", name, value) for name, value in settings.env.items()),
        *((f"secrets.{name}", name, "") for name in settings.secrets),
    ):
        if not name or "=" in name or "\0" in name + value:
            yield (
                f"{merged.origin(key)}: {name!r} cannot be an environment variable; names have no "
                "`=`, and neither names nor values have a NUL byte"
            )
