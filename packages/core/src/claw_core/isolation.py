"""How strongly an instance is separated from the host: an ordered level, an extent per axis."""

from __future__ import annotations

import enum

import attrs


class Isolation(enum.IntEnum):
    """What stands between the instance and the host, from weakest to strongest."""

    NONE = 0
    """A plain process of the caller."""
    GUARD = 1
    """Kernel policy (Landlock and seccomp) on the shared view of the system."""
    SANDBOX = 2
    """Namespaces of its own: file tree, processes, network, users."""
    CONTAINER = 3
    """A container engine's namespaces, image and cgroups; the host's kernel."""
    KERNEL = 4
    """A kernel in user space (gVisor) between the instance and the host's kernel."""
    VM = 5
    """A virtual machine with a kernel of its own."""

    @property
    def label(self) -> str:
        """The word that users read and write."""
        return self.name.lower()


class Extent(enum.StrEnum):
    """How much of one axis was obtained."""

    NONE = "none"
    PARTIAL = "partial"
    FULL = "full"


@attrs.frozen
class Axes:
    """What was really obtained beside the level; every axis counts as `none` until proven.

    Attributes:
        fs: only what the spec mounts, and read-only system files, can be seen or written.
        net: the host's network, loopback included, cannot be reached.
        pid: other processes can be neither seen nor signalled.
        kill: every process of the instance is found and ended, whatever it does.
        limits: memory and number of processes are bounded for the instance as a whole.
    """

    fs: Extent = Extent.NONE
    net: Extent = Extent.NONE
    pid: Extent = Extent.NONE
    kill: Extent = Extent.NONE
    limits: Extent = Extent.NONE

    def to_json(self) -> dict[str, str]:
        """One key per axis, in the order above."""
        return {field.name: str(getattr(self, field.name)) for field in attrs.fields(Axes)}
