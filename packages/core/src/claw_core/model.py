"""Values that cross the hook boundary: frozen, and extended only by fields with defaults."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs

from claw_core.errors import ConfigError
from claw_core.isolation import Axes, Isolation

if TYPE_CHECKING:
    from claw_core.host import Host

Network: TypeAlias = Literal["none", "default"]
When: TypeAlias = Literal["never", "on-failure", "always"]
"""When something is kept at the end of a run; it has failed when its command has, or claw."""
Sink: TypeAlias = Callable[[bytes], Awaitable[None]]

INSTANCE_PREFIX = "claw"


def instance_name(install: str, identity: str) -> str:
    """The name of an instance: `claw-<install, 8 hex digits>-<identity, 12 hex digits>`."""
    return f"{INSTANCE_PREFIX}-{install[:8]}-{identity[:12]}"


@attrs.frozen
class Mount:
    """A directory or file of the host that the instance sees.

    Attributes:
        source: absolute path on the host, symlinks resolved.
        target: absolute path inside the instance.
        writable: whether the instance may change it.
        relocatable: whether a runtime that has no file tree of its own may show it elsewhere
            (only those that core makes itself are: the working directory, a group's folder).
        authorised: whether the owner of this machine asked for it, on the command line or in
            `claw.toml`; any other mount must lie below an allowed root.
    """

    source: Path
    target: str
    writable: bool = False
    relocatable: bool = False
    authorised: bool = attrs.field(default=False, eq=False)


@attrs.frozen
class Resources:
    """Upper bounds for the instance as a whole; None leaves the runtime's own default.

    Attributes:
        cpus: number of processors, fractions allowed.
        memory: bytes.
        processes: number of processes and threads.
    """

    cpus: float | None = None
    memory: int | None = None
    processes: int | None = None


@attrs.frozen
class Spec:
    """What an instance shall be.

    In a fresh process (reaping) only `group` and `image` are filled in; whatever else a teardown
    needs, the backend records with `host.record`.

    Attributes:
        group: the group it runs for, if any.
        image: what the runtime starts from, in the runtime's own terms.
        mounts: host paths to show, in the order in which they are mounted.
        env: environment of every command.
        secrets: names of secrets that become environment variables of every command; their values
            are fetched with `host.secret` and never stored.
        network: `none` is a requirement; `default` is the runtime's usual network; with None the
            runtime chooses (`none` where it can do that by itself).
        resources: upper bounds.
        workdir: directory in which commands start; None is the runtime's choice.
        persistent: whether its disk may be kept when its session ends: then the home of commands,
            and where they start, lie on the disk, and `stop` may follow.
    """

    group: str | None = None
    image: str | None = None
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    secrets: tuple[str, ...] = ()
    network: Network | None = None
    resources: Resources = Resources()
    workdir: str | None = None
    persistent: bool = False


@attrs.frozen
class Description:
    """What a runtime offers on this machine at best.

    Attributes:
        available: whether it can be used at all.
        version: version of the thing that it drives.
        reason: why it is not available, or what a reader should know.
        remedy: what would make it available.
        isolation: the best level that it can offer here.
        axes: the best extent per axis that it can offer here.
        details: what `claw doctor` shows beside that, for instance `storage` and its driver.
    """

    available: bool
    version: str | None = None
    reason: str | None = None
    remedy: str | None = None
    isolation: Isolation = Isolation.NONE
    axes: Axes = Axes()
    details: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Refusal:
    """Why a runtime cannot run a spec as asked, and what would change that."""

    reason: str
    remedy: str


@attrs.frozen
class Claim:
    """A part of something of which the machine has only so much.

    Attributes:
        name: what it is, for instance `macos-vm`; runtimes that mean the same say the same.
        amount: how much of it an instance takes.
        limit: how much there is for all instances of this user.
    """

    name: str
    amount: int = 1
    limit: int = 1


@attrs.frozen
class Assessment:
    """What an instance of exactly this spec will get.

    Attributes:
        isolation: level.
        axes: extent per axis.
        network: the network that the instance will have.
        slots: what it takes of things that are scarce; a run waits until they are free.
        settle: seconds after the owner's death within which the backend may still bring a creation
            to light; 0 where creation ends with the process that asked for it.
        dies_with_owner: whether the instance ends by itself when its owner dies, so that no warden
            is needed.
        notes: what the user should know about this choice.
        terminal: whether commands can be given a terminal.
    """

    isolation: Isolation
    axes: Axes = Axes()
    network: Network = "default"
    slots: tuple[Claim, ...] = ()
    settle: float = 0.0
    dies_with_owner: bool = False
    notes: tuple[str, ...] = ()
    terminal: bool = False


@attrs.frozen
class Instance:
    """One instance, as core hands it to the hooks.

    Attributes:
        name: `claw-<install>-<identity>`, minted by core and never reused.
        spec: what it shall be.
        host: what core gives the backend for it.
    """

    name: str
    spec: Spec
    host: Host = attrs.field(repr=False, eq=False)


def _fits(owner: object, attribute: attrs.Attribute[int], value: int) -> None:
    if not 0 <= value <= 0xFFFF:
        raise ConfigError(
            f"no terminal has {value} {attribute.name}", remedy="give a number from 0 to 65535"
        )


@attrs.frozen
class Resize:
    """The size of a terminal, in characters; while a command runs, that it has changed.

    Raises:
        ConfigError: no terminal has that size.
    """

    rows: int = attrs.field(validator=_fits)
    columns: int = attrs.field(validator=_fits)


@attrs.frozen
class Command:
    """A command to run inside an instance.

    Attributes:
        argv: program and arguments; the program is looked up on the instance's PATH.
        env: environment on top of the spec's.
        workdir: directory to start in; None is the spec's.
        terminal: size of the terminal that is its standard streams and controls it; what it writes
            there comes as standard output. None gives it pipes.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    workdir: str | None = None
    terminal: Resize | None = None


@attrs.frozen
class Exit:
    """How a command ended.

    Attributes:
        code: 0..255; 126 not executable, 127 not found, 128+n ended by signal n.
        signal: number of the signal that ended it, or None.
        reason: what to tell the user when the command could not be started at all.
    """

    code: int
    signal: int | None = None
    reason: str | None = None

    @classmethod
    def from_wait(cls, status: int) -> Exit:
        """Translate a return code as `subprocess` gives it: negative for signals."""
        return cls(128 - status, signal=-status) if status < 0 else cls(status)


@attrs.frozen
class Signal:
    """A signal for the command's process group."""

    number: int


Control: TypeAlias = Resize | Signal


@attrs.frozen(eq=False)
class IO:
    """The streams of one command.

    Attributes:
        stdin: chunks for the command's standard input, or None for an empty one.
        stdout: awaited for every chunk of standard output; awaiting it slows the command down.
        stderr: the same for standard error.
        control: resizes and signals while the command runs, or None.
    """

    stdin: AsyncIterator[bytes] | None
    stdout: Sink
    stderr: Sink
    control: AsyncIterator[Control] | None = None


@attrs.frozen
class Audit:
    """A snapshot kept for later inspection, under a label that the user reads."""

    label: str

    @property
    def slug(self) -> str:
        """The label as a part of a name: letters, digits, `_`, `.` and `-`."""
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", self.label).strip("-.")[:100] or "audit"


@attrs.frozen
class Image:
    """A snapshot that later instances start from."""

    name: str


SnapshotTarget: TypeAlias = Audit | Image


@attrs.frozen
class Snapshot:
    """A snapshot for inspection, as its runtime lists it.

    Attributes:
        name: what `snapshot` returned.
        instance: name of the instance that it was made of.
        size: bytes that would be free without it; None where the runtime cannot tell.
    """

    name: str
    instance: str
    size: int | None = None
