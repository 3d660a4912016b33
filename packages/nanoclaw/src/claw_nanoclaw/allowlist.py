"""NanoClaw's list of host paths that groups may mount, with its mistakes said aloud.

NanoClaw itself logs a mistake and then blocks every mount, so that nobody knows why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from claw_core.config import files
from claw_core.errors import ConfigProblems
from claw_core.mounts import MountPolicy, Root

PLACE: Final = "~/.config/nanoclaw/mount-allowlist.json"
_KEYS: Final = ("allowedRoots", "blockedPatterns", "nonMainReadOnly")
_ROOT: Final = ("path", "allowReadWrite", "description")
_WRITTEN: Final = '{"path": "~/projects", "allowReadWrite": false}'


@attrs.frozen
class AllowList:
    """What the list allows.

    Attributes:
        roots: directories below which mounts are allowed.
        blocked: words that no part of a path may contain.
        others_read: whether all groups but the main one may only read.
        exists: whether there is such a list.
    """

    roots: tuple[Root, ...] = ()
    blocked: tuple[str, ...] = ()
    others_read: bool = True
    exists: bool = False

    @classmethod
    def load(cls, path: Path | None = None) -> AllowList:
        """Read the list; an empty one where there is none.

        Args:
            path: where it is; None is NanoClaw's own place.

        Raises:
            ConfigProblems: everything that is wrong with it.
        """
        path = path or Path(PLACE).expanduser()
        try:
            text = files.read(path, trusted=True)
            if text is None:
                return cls()
            value = json.loads(text)
        except (files.Unreadable, ValueError, RecursionError) as error:
            raise ConfigProblems.of([f"{path}: {error}"]) from None
        problems = list(_problems(value))
        if problems:
            raise ConfigProblems.of([f"{path}: {problem}" for problem in problems])
        return cls(
            tuple(
                Root(_path(root["path"]), root.get("allowReadWrite", False))
                for root in value["allowedRoots"]
            ),
            tuple(value["blockedPatterns"]),
            value.get("nonMainReadOnly", True),
            exists=True,
        )

    def policy(self, policy: MountPolicy, *, main: bool) -> MountPolicy:
        """Return a policy that also allows and blocks what the list does.

        Args:
            policy: what claw itself is told.
            main: whether it is for the main group.
        """
        writable = main or not self.others_read
        roots = tuple(Root(one.path, one.writable and writable) for one in self.roots)
        blocked = tuple(f"*{word.strip('/')}*" for word in self.blocked)
        return attrs.evolve(
            policy, roots=(*policy.roots, *roots), blocked=(*policy.blocked, *blocked)
        )


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _problems(value: Any) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"expected an object with {', '.join(_KEYS)}"
        return
    yield from _unknown(value, _KEYS, "")
    for key in ("allowedRoots", "blockedPatterns"):
        if not isinstance(value.get(key), list):
            yield f"{key}: expected a list; an empty one is fine"
    if not isinstance(value.get("nonMainReadOnly", True), bool):
        yield "nonMainReadOnly: expected true or false"
    for number, word in enumerate(_list(value, "blockedPatterns")):
        if not isinstance(word, str) or not word.strip("/"):
            yield f"blockedPatterns[{number}]: expected a word"
    for number, root in enumerate(_list(value, "allowedRoots")):
        yield from (f"allowedRoots[{number}]{problem}" for problem in _root_problems(root))


def _root_problems(root: Any) -> Iterator[str]:
    if not isinstance(root, dict):
        yield f": expected an object such as {_WRITTEN}"
        return
    yield from _unknown(root, _ROOT, ".")
    if not isinstance(root.get("allowReadWrite", False), bool):
        yield ".allowReadWrite: expected true or false"
    text = root.get("path")
    if not isinstance(text, str) or not text.startswith(("/", "~")):
        yield ".path: expected an absolute path or one with ~"
        return
    try:
        if _path(text).is_file():
            yield f".path: {text} is a file; name the directory that holds it"
    except (RuntimeError, ValueError):
        yield f".path: {text!r} cannot be a path"


def _unknown(value: Mapping[str, Any], known: tuple[str, ...], dot: str) -> Iterator[str]:
    for key in sorted(set(value) - set(known)):
        yield f"{dot}{key}: unknown key; known are {', '.join(known)}"


def _list(value: Mapping[str, Any], key: str) -> list[Any]:
    found = value.get(key)
    return found if isinstance(found, list) else []
