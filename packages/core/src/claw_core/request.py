"""From what a caller asks for, and what is configured, to what exactly an instance shall be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from claw_core.config.config import WORKSPACE_GROUP, Config, Group, raise_if
from claw_core.config.settings import Merged
from claw_core.config.sources import RUNTIME_SECRETS
from claw_core.model import Mount, Resources, Spec
from claw_core.mounts import MountPolicy, NotGranted

ASKED: Final = "asked for"
"""The origin of what a caller says himself, on a command line or in a program."""


def folder_mount(group: Group) -> Mount:
    """The folder of a group, as its instances see it."""
    return Mount(group.folder, WORKSPACE_GROUP, writable=True, relocatable=True, authorised=True)


def spec_for(
    policy: MountPolicy, merged: Merged, group: str | None = None, folder: Mount | None = None
) -> Spec:
    """Return the spec that the settings amount to, every mount resolved and granted.

    Args:
        policy: decides about mounts.
        merged: the settings.
        group: name of the group.
        folder: the mount of the group's folder, granted already.

    Raises:
        ConfigProblems: mounts that are not granted, variables that cannot be; all of them.
    """
    settings = merged.settings
    problems = list(_variable_problems(merged))
    granted = []
    if folder is not None and f"mounts.{folder.target}" not in merged.values:
        granted.append(folder)
    for mount in settings.mounts:
        try:
            granted.append(policy.resolve(mount))
        except NotGranted as error:
            origin = merged.origin(f"mounts.{mount.target}")
            problems.append(f"{origin}: {error} ({error.remedy})")
    raise_if(problems)
    return Spec(
        group=group,
        image=settings.image,
        mounts=tuple(granted),
        env=settings.env,
        secrets=settings.secrets,
        network=settings.network,
        resources=Resources(settings.cpus, settings.memory, settings.processes),
        workdir=settings.workdir,
    )


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
