"""What can be set for a run, and how settings of several sources become one, with their origins."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NewType

import attrs

from claw_core.isolation import Isolation
from claw_core.known import canonical
from claw_core.model import Mount, Network

Duration = NewType("Duration", float)
"""Seconds; people write `10m`."""
Size = NewType("Size", int)
"""Bytes; people write `2g`."""
Milliseconds = NewType("Milliseconds", int)
"""As NanoClaw writes times."""
HostPath = NewType("HostPath", Path)
"""Absolute; people may begin it with `~`."""
InnerPath = NewType("InnerPath", str)
"""Relative to a directory of the instance, without `..`."""
Script = NewType("Script", str)
"""A program for a shell inside an instance, of as many lines as it needs."""
Variables = NewType("Variables", Mapping[str, str])
"""Environment of commands; values are never quoted in an error."""

AUTO: Final = "auto"
PREFER: Final = ("apple", "tart", "docker", "local")
"""The order in which `auto` asks, from the strongest isolation to the weakest."""


def _setting(text: str, example: str, *, default: Any = None, factory: Any = None) -> Any:
    """A field with what the reference and the example file say about it."""
    metadata = {"help": text, "example": example}
    if factory is not None:
        return attrs.field(factory=factory, metadata=metadata)
    return attrs.field(default=default, metadata=metadata)


@attrs.frozen(kw_only=True)
class Settings:
    """The settings of one source, or of all of them together; None and empty mean not set."""

    runtime: str | None = _setting(
        "Runtime to use; `auto` takes the first of `prefer` that accepts the run.", '"auto"'
    )
    prefer: tuple[str, ...] | None = _setting(
        "The order in which `auto` asks.", '["apple", "tart", "docker", "local"]'
    )
    fallback: tuple[str, ...] | None = _setting(
        "Runtimes to take instead when the named one cannot run; never one with weaker isolation.",
        '["apple"]',
    )
    min_isolation: Isolation | None = _setting(
        "Floor: `none`, `guard`, `sandbox`, `container`, `kernel` or `vm`; a run that cannot get it"
        " is refused. Without a floor it is `guard`.",
        '"sandbox"',
    )
    image: str | None = _setting("What the runtime starts from.", '"agent:1"')
    network: Network | None = _setting(
        "`none` is a requirement, `default` the runtime's usual network; not set, it is `none` on"
        " runtimes that can do that by themselves.",
        '"none"',
    )
    cpus: float | None = _setting("Number of processors, fractions allowed.", "2.0")
    memory: Size | None = _setting("Memory of the instance as a whole.", '"2g"')
    processes: int | None = _setting("Number of processes and threads.", "512")
    timeout: Duration | None = _setting("Stop the command after this time.", '"30m"')
    idle_timeout: Duration | None = _setting(
        "Stop the command when it is silent for this long.", '"5m"'
    )
    workdir: str | None = _setting("Directory inside in which commands start.", '"/workspace"')
    agent: str | None = _setting(
        "Agent to ask where none is named: `claude`, `codex`, `opencode`, `gemini`, `kimi`, or that"
        " of a plugin.",
        '"claude"',
    )
    secrets: tuple[str, ...] = _setting(
        "Names of secrets: their values come from the environment or `.env`, and become variables"
        " of the command without ever touching disk, logs or arguments.",
        '["ANTHROPIC_API_KEY"]',
        default=(),
    )
    mounts: tuple[Mount, ...] = _setting(
        "Host paths to show inside, `SRC:DST[:rw]`; read-only unless `:rw`, `~` is your home.",
        '["~/projects/site:/workspace/site"]',
        default=(),
    )
    env: Variables = _setting("Variables of every command.", '{ TZ = "UTC" }', factory=dict)
    runtimes: Mapping[str, Mapping[str, Any]] = _setting(
        "The runtimes' own tables, for instance `[runtimes.local]`.",
        '{ local = { engine = "auto" } }',
        factory=dict,
    )

    def flat(self) -> Iterator[tuple[str, Any]]:
        """What is set, one entry for each thing that a stronger source may replace by itself."""
        for field in _SCALARS:
            value = getattr(self, field)
            if value is not None:
                yield field, value
        for name in self.secrets:
            yield f"secrets.{name}", name
        for mount in self.mounts:
            yield f"mounts.{posixpath.normpath(mount.target)}", mount
        for name, text in self.env.items():
            yield f"env.{name}", text
        for runtime, table in self.runtimes.items():
            for key, value in table.items():
                yield f"runtimes.{canonical(runtime)}.{key}", value


_SCALARS: Final = tuple(
    field.name
    for field in attrs.fields(Settings)
    if field.name not in {"secrets", "mounts", "env", "runtimes"}
)


@attrs.frozen
class Source:
    """Settings, and where they come from.

    Attributes:
        settings: what is set there.
        name: what a user calls the source, for instance `claw.toml`.
        paths: setting -> how it is called there, where that is another word.
        prefix: what stands before every setting there, for instance `groups.finance.`.
    """

    settings: Settings
    name: str
    paths: Mapping[str, str] = {}
    prefix: str = ""

    def origin(self, key: str) -> str:
        """Where a setting of this source comes from, as a user would look for it."""
        return f"{self.name}: {self.paths.get(key) or self.prefix + key}"


@attrs.frozen
class Value:
    """One thing that is set, and where it comes from."""

    value: Any
    origin: str


@attrs.frozen
class Merged:
    """The settings of several sources as one.

    Attributes:
        settings: the strongest source's word for each thing; variables, mounts (by their targets),
            secrets and keys of runtime tables are joined one by one.
        values: each thing with its origin, by the keys of `Settings.flat`.
    """

    settings: Settings
    values: Mapping[str, Value]

    def origin(self, key: str) -> str:
        """Where a setting comes from; `default` where nobody set it."""
        return self.values[key].origin if key in self.values else "default"


NOTHING: Final = Merged(Settings(), {})
"""Where nobody sets anything."""


def merge(*sources: Source | Merged) -> Merged:
    """Join sources, the strongest first; what was joined before keeps its origins."""
    said = [one for one in sources if any(True for _ in one.settings.flat())]
    if len(said) == 1 and isinstance(said[0], Merged):
        return said[0]
    values: dict[str, Value] = {}
    for source in reversed(said):
        for key, value in source.settings.flat():
            values.pop(key, None)  # what is replaced also takes the place of the stronger source
            values[key] = Value(value, source.origin(key))
    fields: dict[str, Any] = {"secrets": (), "mounts": (), "env": {}, "runtimes": {}}
    for key, one in values.items():
        first, _, rest = key.partition(".")
        if first in {"secrets", "mounts"}:
            fields[first] += (one.value,)
        elif first == "env":
            fields["env"][rest] = one.value
        elif first == "runtimes":
            name, _, setting = rest.partition(".")
            fields["runtimes"].setdefault(name, {})[setting] = one.value
        else:
            fields[key] = one.value
    return Merged(Settings(**fields), values)
