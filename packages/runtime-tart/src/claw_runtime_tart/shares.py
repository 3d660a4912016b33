"""Mounts in a guest: directories that are shared with it, or copied in and back.

Tart shares directories, under names, fixed when the machine starts. A macOS guest shows them at
`/Volumes/My Shared Files`, so a link stands where the mount was asked for.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import attrs

from claw_core.model import Mount, Refusal
from claw_runtime_tart.settings import Share

AUTOMOUNT: Final = "com.apple.virtio-fs.automount"
"""The tag that a macOS guest mounts by itself."""
SHOWN: Final[Mapping[str, str]] = {
    "darwin": "/Volumes/My Shared Files",
    "linux": "/run/claw-shares",
}
"""Where shares are in a guest, by its system."""
PATIENCE: Final = 30
"""Seconds that a guest has to show its shares after it has booted."""


@attrs.frozen
class Shares:
    """How the mounts of one instance reach its guest.

    Attributes:
        shared: mounts by the name of their share.
        copied: mounts that are copied in.
    """

    shared: Mapping[str, Mount]
    copied: tuple[Mount, ...]

    @classmethod
    def of(cls, mounts: Iterable[Mount], how: Share) -> Shares:
        """Decide for each mount; blocks for a look at the disk.

        A single file cannot be shared.
        """
        shared, copied = {}, []
        for number, mount in enumerate(mounts):
            if how == "copy" or not mount.source.is_dir() or (how == "auto" and _fragile(mount)):
                copied.append(mount)
            else:
                name = re.sub(r"[^A-Za-z0-9._-]+", "-", mount.source.name).strip("-.") or "share"
                shared[f"{number}-{name}"] = mount
        return cls(shared, tuple(copied))

    def refusal(self) -> Refusal | None:
        """Why Tart cannot express a share."""
        for mount in self.shared.values():
            if ":" in str(mount.source) or "," in str(mount.source):
                return Refusal(
                    f"Tart cannot share {mount.source}: its path has a colon or a comma",
                    'rename it, or set share = "copy" in [runtimes.tart]',
                )
        # A link in a share would be a link on the host, and a copy would come back with the other.
        for inner, outer in itertools.permutations(self.order(), 2):
            if PurePosixPath(inner.target).is_relative_to(outer.target):
                return Refusal(
                    f"Tart cannot put {inner.target} into another mount, {outer.target}",
                    "name a target beside it",
                )
        return None

    def options(self) -> list[str]:
        """Arguments of `tart run`."""
        return [
            f"--dir={name}:{mount.source}{'' if mount.writable else ':ro'}"
            for name, mount in self.shared.items()
        ]

    def program(self, system: str) -> str:
        """What the guest does to show them where they were asked for.

        It prints one line per mount: the number of the mount's line, and where it is. A mount that
        may be elsewhere is below the home where the guest's root cannot be changed.
        """
        shown = SHOWN[system]
        lines = [_PLACE]
        if self.shared and system == "linux":
            lines.append(
                f"sudo -n mkdir -p {shown} && sudo -n mount -t virtiofs {AUTOMOUNT} {shown} || "
                "{ echo 'the shares cannot be mounted' >&2; exit 1; }"
            )
        for name, mount in self.shared.items():
            path = shlex.quote(f"{shown}/{name}")
            lines.append(f"await {path}; place {path} {_target(mount)}")
        lines += [f"place '' {_target(mount)}" for mount in self.copied]
        return "\n".join(lines)

    def order(self) -> list[Mount]:
        """The mounts in the order of the lines that `program` prints."""
        return [*self.shared.values(), *self.copied]


def _target(mount: Mount) -> str:
    return f"{shlex.quote(mount.target)} {'yes' if mount.relocatable else 'no'}"


def _fragile(mount: Mount) -> bool:
    """Whether sharing would damage it: a writable working tree of git."""
    return mount.writable and (mount.source / ".git").exists()


_PLACE: Final = f"""
await() {{
    left={PATIENCE * 10}
    until [ -d "$1" ]; do
        left=$((left - 1))
        [ $left -gt 0 ] || {{ echo "the share $1 does not appear" >&2; exit 1; }}
        sleep 0.1
    done
}}
become() {{
    if ! mkdir -p "${{2%/*}}/" 2>/dev/null || ! [ -w "${{2%/*}}/" ]; then
        sudo -n mkdir -p "${{2%/*}}/" 2>/dev/null || return 1
        s='sudo -n'
    else
        s=
    fi
    if [ -n "$1" ]; then
        [ ! -d "$2" ] || [ -L "$2" ] || $s rmdir "$2" 2>/dev/null || return 1
        $s ln -sfn "$1" "$2" 2>/dev/null
    else
        [ ! -L "$2" ] || $s rm -f "$2"
        if [ -n "$s" ]; then
            sudo -n mkdir -p "${{2%/*}}/" && sudo -n chown "$(id -u)" "${{2%/*}}/"
        fi
    fi
}}
place() {{
    if become "$1" "$2"; then
        printf '%s\\n' "$2"
    elif [ "$3" = yes ] && become "$1" "$HOME$2"; then
        printf '%s\\n' "$HOME$2"
    else
        echo "nothing can be put at $2" >&2
        exit 1
    fi
}}
"""


def within(path: str | None, places: Mapping[str, str]) -> str | None:
    """Where a path is really, when mounts are elsewhere than they were asked for."""
    for target, place in places.items():
        if path == target or (path or "").startswith(f"{target.rstrip('/')}/"):
            assert path is not None
            return place + path[len(target.rstrip("/")) :]
    return path


def parent(path: str) -> tuple[str, str]:
    """Directory and name of an absolute path in a guest."""
    pure = Path(path)
    return str(pure.parent), pure.name


def first(mounts: Iterable[Mount]) -> str | None:
    """Where commands start that do not say so: in the first directory that was asked for."""
    return next((mount.target for mount in mounts if mount.source.is_dir()), None)
