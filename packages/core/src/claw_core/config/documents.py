"""What the files hold: `claw.toml`, and NanoClaw's `groups/NAME/config.json`."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any, Final

import attrs

from claw_core.config.settings import (
    Duration,
    HostPath,
    InnerPath,
    Milliseconds,
    Retention,
    Settings,
    Source,
    Variables,
)
from claw_core.model import Mount

EXTRA: Final = "/workspace/extra"
"""Where NanoClaw shows additional mounts."""


@attrs.frozen(kw_only=True)
class AllowedRoot:
    """A directory below which group files and programs may mount.

    Attributes:
        path: the directory.
        writable: whether a mount below it may be writable.
    """

    path: HostPath
    writable: bool = False


@attrs.frozen(kw_only=True)
class MountPolicyTable:
    """The table `[mount_policy]`."""

    allowed_roots: tuple[AllowedRoot, ...] = attrs.field(
        default=(),
        metadata={
            "help": "Directories below which `config.json` and programs that embed claw may mount;"
            " writable ones only where it says so.",
            "example": '[{ path = "~/projects" }, { path = "~/shared", writable = true }]',
        },
    )
    blocked: tuple[str, ...] = attrs.field(
        default=(),
        metadata={
            "help": "Names that no mount may have in its path, beside those that are always"
            " blocked; `*` and `?` as in a shell.",
            "example": '["*.pem", "payroll"]',
        },
    )


@attrs.frozen(kw_only=True)
class ClawToml(Settings):
    """The whole of `claw.toml`: settings of every run at the top, of a group in its table."""

    groups: Mapping[str, Settings] = attrs.field(factory=dict)
    mount_policy: MountPolicyTable = MountPolicyTable()
    snapshots: Retention = Retention()
    required_observers: tuple[str, ...] = attrs.field(
        default=(),
        metadata={
            "help": "Observers without which nothing runs; see `claw doctor` for their names.",
            "example": '["company-policy"]',
        },
    )


@attrs.frozen(kw_only=True)
class AdditionalMount:
    """One of `additionalMounts`."""

    host_path: HostPath = attrs.field(alias="hostPath")
    container_path: InnerPath | None = attrs.field(default=None, alias="containerPath")
    readonly: bool = True

    def mount(self) -> Mount:
        """The mount that is asked for; whether it is granted is the policy's decision."""
        name = self.container_path or self.host_path.name
        return Mount(self.host_path, posixpath.join(EXTRA, name), writable=not self.readonly)


@attrs.frozen(kw_only=True)
class ContainerConfig:
    """The object `containerConfig`."""

    runtime: str | None = None
    timeout: Milliseconds | None = None
    image: str | None = None
    env: Variables = Variables({})
    additional_mounts: tuple[AdditionalMount, ...] = attrs.field(
        default=(), alias="additionalMounts"
    )


@attrs.frozen(kw_only=True)
class GroupFile:
    """The whole of `config.json`; what NanoClaw keeps there for itself is passed over."""

    container_config: ContainerConfig = attrs.field(
        default=ContainerConfig(), alias="containerConfig"
    )
    name: Any = None
    folder: Any = None
    trigger: Any = None
    added_at: Any = None
    requires_trigger: Any = attrs.field(default=None, alias="requiresTrigger")
    is_main: Any = attrs.field(default=None, alias="isMain")

    def source(self, name: str) -> Source:
        """The same in claw's own words.

        Args:
            name: what a user calls this file.
        """
        config = self.container_config
        mounts = [wanted.mount() for wanted in config.additional_mounts]
        settings = Settings(
            runtime=config.runtime,
            timeout=None if config.timeout is None else Duration(config.timeout / 1000),
            image=config.image,
            env=config.env,
            mounts=tuple(mounts),
        )
        paths = {
            f"mounts.{mount.target}": f"containerConfig.additionalMounts[{number}]"
            for number, mount in enumerate(mounts)
        }
        return Source(settings, name, paths, "containerConfig.")
