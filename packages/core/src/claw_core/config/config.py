"""Everything that is configured for one root: read once, and each group's own file at every run."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from claw_core.config import sources
from claw_core.config.checks import contradictions, unknown_runtimes
from claw_core.config.settings import Merged, Retention, Settings, Source, merge
from claw_core.config.sources import Problems
from claw_core.errors import ConfigProblems
from claw_core.mounts import MountPolicy, Root, protect

if TYPE_CHECKING:
    from claw_core.config.documents import ClawToml

GROUP_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""NanoClaw's rule for the folder of a group."""
RESERVED: Final = frozenset({"global"})
"""Folders below `groups/` that are no groups; NanoClaw shows this one to all of them."""
WORKSPACE_GROUP: Final = "/workspace/group"
_MISSING: Final[tuple[int, ...]] = ()


@attrs.frozen
class Group:
    """A group as its files stand now.

    Attributes:
        name: the name of its folder.
        folder: the folder, as a real path.
        file: what its `config.json` sets, or None where there is none.
        merged: its settings from all sources, without what a caller asks for.
    """

    name: str
    folder: Path
    file: Source | None
    merged: Merged


@attrs.define(eq=False)
class Config:
    """What is configured; make one with `load`, or from settings alone.

    Attributes:
        defaults: settings of every run, from the strongest source to the weakest.
        groups: settings of single groups.
        policy: which host paths may be mounted.
        root: the directory that holds `groups/` and `.env`, or None where groups are only labels.
        secrets: name -> value of everything that may be a secret, the environment before `.env`.
        required_observers: names of observers without which nothing runs.
        retention: how many snapshots for inspection are kept.
        file: where `claw.toml` is or would be, or None where there are no files.
        problems: what is wrong in `claw.toml`, `.env` and the environment; nothing runs then.
    """

    defaults: tuple[Source, ...] = ()
    groups: Mapping[str, Source] = attrs.field(factory=dict)
    policy: MountPolicy = attrs.field(factory=MountPolicy)
    root: Path | None = None
    secrets: Mapping[str, str] = attrs.field(factory=lambda: dict(os.environ), repr=False)
    required_observers: tuple[str, ...] = ()
    retention: Retention = Retention()
    file: Path | None = None
    problems: tuple[str, ...] = ()
    _read: dict[str, tuple[tuple[int, ...], Group]] = attrs.field(init=False, factory=dict)

    @classmethod
    def of(cls, settings: Settings, name: str = "settings", roots: tuple[Root, ...] = ()) -> Config:
        """A configuration without files, for programs that embed claw."""
        return cls(defaults=(Source(settings, name),), policy=MountPolicy(roots))

    @classmethod
    def load(
        cls,
        *,
        path: Path | None = None,
        root: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Config:
        """Read `claw.toml`, `.env` and the environment; what is wrong ends up in `problems`.

        Args:
            path: `claw.toml`; None is `$CLAW_CONFIG`, or the one in the user's configuration
                directory, which need not exist.
            root: the directory of `groups/` and `.env`; None is `$CLAW_ROOT`, and without that
                there are neither: a file in whatever directory somebody is in decides nothing.
            environ: the environment; None is this process's own.
        """
        environ = os.environ if environ is None else environ
        file = path or Path(environ.get("CLAW_CONFIG") or default_path(environ))
        if root is None and environ.get("CLAW_ROOT"):
            root = Path(environ["CLAW_ROOT"])
        if root is not None:
            root = Path(os.path.realpath(root))
        config = cls(root=root, file=file, secrets=environ)
        with config._collecting():
            config.defaults = (sources.environment(environ, "environment"),)
        if root is not None:
            with config._collecting():
                dotenv = sources.dotenv(root / ".env")
                config.secrets = {**dotenv, **environ}
                config.defaults += (sources.environment(dotenv, ".env"),)
        protected = protect(file, *([root / ".env"] if root else []))
        config.policy = MountPolicy(protected=protected)
        with config._collecting():
            document = sources.claw_toml(file)
            if document is not None:
                config._take(document, str(file))
            elif path or environ.get("CLAW_CONFIG"):
                config.problems += (f"{file}: there is no such file",)
        return config

    @contextlib.contextmanager
    def _collecting(self) -> Iterator[None]:
        try:
            yield
        except Problems as error:
            self.problems += tuple(error.problems)

    def known_group(self, name: str) -> Group | None:
        """A group that was read before and whose file has not changed since."""
        if self.root is None:
            return Group(name, Path(), None, self._joined(name, None))
        known = self._read.get(name)
        if known is None or known[0] != _identity(f"{self.root}/groups/{name}/config.json"):
            return None
        return known[1]

    def group(self, name: str) -> Group:
        """Read a group's file and return the group.

        Raises:
            ConfigProblems: all that is wrong in the configuration and in the group's file, or there
                is no such group.
        """
        if self.root is None:
            return Group(name, Path(), None, self._joined(name, None))
        folder = self.root / "groups" / name
        before = _MISSING
        problems = [*self.problems, *self._name_problems(name, folder)]
        file: Source | None = None
        if len(problems) == len(self.problems):
            before = _identity(str(folder / "config.json"))
            try:
                label = f"groups/{name}/config.json"
                file = sources.group_file(folder / "config.json", label)
            except Problems as error:
                problems += error.problems
        raise_if(problems)
        group = Group(name, folder.resolve(), file, self._joined(name, file))
        self._read[name] = before, group
        return group

    def group_names(self) -> tuple[str, ...]:
        """Every group that has a folder or a table in `claw.toml`."""
        return tuple(sorted({*self.groups, *self._folders()}))

    def _folders(self) -> list[str]:
        """The names of the folders that are groups."""
        try:
            folders = list(os.scandir(f"{self.root}/groups")) if self.root else []
        except OSError:
            return []  # there are no groups
        return sorted(one.name for one in folders if _is_name(one.name) and one.is_dir())

    def merged(
        self, asked: Source, group: Group | None, installed: Callable[[], Collection[str]]
    ) -> Merged:
        """Join everything for one run, the caller's own word first.

        Args:
            asked: what the caller asks for.
            group: the group it runs for.
            installed: gives the names of the installed runtimes.

        Raises:
            ConfigProblems: all that is wrong in the configuration; runtimes nobody knows.
        """
        result = merge(asked, group.merged if group else merge(*self.defaults))
        raise_if([*self.problems, *unknown_runtimes(result, installed), *contradictions(result)])
        return result

    def _joined(self, name: str, file: Source | None) -> Merged:
        own = self.groups.get(name)
        return merge(*(one for one in (own, file, *self.defaults) if one is not None))

    def _take(self, document: ClawToml, name: str) -> None:
        self.defaults = (Source(document, name), *self.defaults)
        self.groups = {
            group: Source(settings, name, prefix=f"groups.{group}.")
            for group, settings in document.groups.items()
        }
        self.problems += tuple(
            f"{name}: groups.{group}: no group can have this name"
            for group in document.groups
            if not _is_name(group)
        )
        table = document.mount_policy
        self.policy = attrs.evolve(
            self.policy,
            roots=tuple(Root(root.path, root.writable) for root in table.allowed_roots),
            blocked=(*self.policy.blocked, *table.blocked),
        )
        self.required_observers = document.required_observers
        self.retention = document.snapshots

    def _name_problems(self, name: str, folder: Path) -> Iterator[str]:
        if not _is_name(name):
            yield (
                f"{name!r} cannot be a group: names are letters, digits, - and _, begin with a "
                "letter or digit, have at most 64 characters, and global is no group"
            )
        elif not folder.is_dir():
            names = ", ".join(self._folders()) or "none"
            yield f"there is no group {name!r} in {self.root}; groups there: {names}"
        elif folder.is_symlink():
            yield f"groups/{name} is a symbolic link; put the folder itself there"
        elif name not in self.groups:
            # A slip in the name of a table must not drop the floor that stands in it.
            lonely = set(self.groups) - set(self._folders())
            for close in difflib.get_close_matches(name, lonely, 1, 0.8):
                table = self.groups[close]
                yield f"{table.name}: groups.{close}: there is no such group; is {name} meant?"


def _is_name(name: str) -> bool:
    return GROUP_NAME.fullmatch(name) is not None and name not in RESERVED


def default_path(environ: Mapping[str, str]) -> Path:
    """Where `claw.toml` is unless somebody says otherwise: never in the working directory."""
    base = environ.get("XDG_CONFIG_HOME")
    try:
        return (Path(base) if base else Path.home() / ".config") / "claw" / "claw.toml"
    except RuntimeError:
        return Path("/nonexistent/claw.toml")  # no HOME, and no entry in the user database


def raise_if(problems: list[str]) -> None:
    """Raise all problems together, if there are any."""
    if problems:
        raise ConfigProblems.of(problems)


def _identity(path: str) -> tuple[int, ...]:
    """What changes whenever a file changes; the times of a change cannot be set back."""
    try:
        status = os.lstat(path)
    except OSError:
        return _MISSING
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
