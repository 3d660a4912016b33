"""Finds runtimes by their entry points, and loads just the one that is asked for.

Discovery reads metadata only. A plugin that is broken in whatever way is an error that names it
when it is asked for, a row when all are listed, and never the failure of another plugin.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import attrs

from claw_core import events
from claw_core._version import __version__
from claw_core.errors import ClawError, PluginError, UnknownRuntime
from claw_core.hookspecs import Runtime
from claw_core.relay import HOOKS, Relay, observer_manager, text_of

if TYPE_CHECKING:
    import importlib.metadata

RUNTIMES: Final = "claw.runtimes"
PLUGINS: Final = "claw.plugins"
ALIASES: Final[Mapping[str, str]] = {"container": "apple"}
KNOWN: Final[Mapping[str, str]] = {
    "apple": "claw-runtime-apple",
    "docker": "claw-runtime-docker",
    "tart": "claw-runtime-tart",
}
# A source tree on PYTHONPATH has no installed metadata, and `claw run` must work there as well.
_EMBEDDED: Final = {"local": "claw_core.local.runtime:LocalRuntime"}
_SUPPORTED_API: Final = (1,)
_log = logging.getLogger("claw")


@attrs.frozen
class Origin:
    """Where a plugin comes from."""

    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@attrs.frozen
class Row:
    """A runtime in a listing; `error` is None where it can be used."""

    name: str
    distribution: str
    version: str
    error: PluginError | None = None


@attrs.frozen
class _Entry:
    """An entry point, or why the entry points of a distribution cannot be read."""

    name: str
    value: str
    origin: Origin
    error: PluginError | None = None


class Registry:
    """The installed runtimes.

    Args:
        observers: held around the phases of every runtime.
        listener: told about the phases of every instance.
    """

    def __init__(
        self, observers: Iterable[object] = (), listener: events.Listener = events.ignore
    ) -> None:
        self._observers = tuple(observers)
        self._listener = listener

    def names(self) -> tuple[str, ...]:
        """The names of all installed runtimes, sorted; nothing is imported for it."""
        return tuple(sorted({entry.name for entry in self._entries if entry.error is None}))

    def origin(self, name: str) -> Origin:
        """Say which distribution offers a runtime.

        Raises:
            UnknownRuntime: none does.
            PluginError: more than one does.
        """
        return self._find(name).origin

    def resolve(self, name: str, settings: Mapping[str, Any] = {}) -> Relay:
        """Load one runtime and make it from its settings.

        Raises:
            UnknownRuntime: no installed distribution offers it.
            PluginError: it cannot be loaded, or does not keep to the contract.
            ClawError: it refuses its settings.
        """
        entry = self._find(name)
        backend_class = check(entry.name, _load(entry, RUNTIMES), entry.origin)
        try:
            backend = backend_class(settings)
        except ClawError as error:
            error.at(runtime=entry.name)
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise _broken(
                entry,
                f"cannot be made from its settings: {text_of(error)}",
                "check its settings, or",
            ) from error
        return Relay(entry.name, backend, self._observers, self._listener, settings)

    def rows(self) -> tuple[Row, ...]:
        """Every installed runtime, loaded to see whether it can be used, each by itself."""
        rows = [
            Row(entry.name, entry.origin.distribution, entry.origin.version, entry.error)
            for entry in self._entries
            if entry.error is not None
        ]
        for name in self.names():
            try:
                entry = self._find(name)
                check(name, _load(entry, RUNTIMES), entry.origin)
            except PluginError as error:
                offers = [entry.origin for entry in self._entries if entry.name == name]
                rows += [Row(name, origin.distribution, origin.version, error) for origin in offers]
            else:
                rows.append(Row(name, entry.origin.distribution, entry.origin.version))
        return tuple(rows)

    def broken(self) -> tuple[Row, ...]:
        """The rows of those runtimes that cannot be used."""
        return tuple(row for row in self.rows() if row.error is not None)

    @cached_property
    def _entries(self) -> tuple[_Entry, ...]:
        entries = list(_discover(RUNTIMES))
        for name, value in _EMBEDDED.items():
            if not any((e.name, e.origin.distribution) == (name, "claw-core") for e in entries):
                entries.append(_Entry(name, value, Origin("claw-core", __version__)))
        return tuple(entries)

    def _find(self, name: str) -> _Entry:
        installed = self.names()
        asked = name
        if name not in installed:
            name = ALIASES.get(name, name)
        if name not in installed:
            raise _unknown(asked, name, installed)
        offers = [entry for entry in self._entries if entry.name == name]
        if len(offers) > 1:
            both = " and ".join(str(entry.origin) for entry in offers)
            raise PluginError(
                f"more than one distribution offers this runtime: {both}",
                runtime=name,
                remedy=f"pip uninstall {' or '.join(e.origin.distribution for e in offers)}",
            )
        return offers[0]


def check(name: str, value: object, origin: Origin) -> type[Runtime]:
    """Return the class of a runtime after seeing that it keeps to the contract.

    Raises:
        PluginError: it does not; the message lists everything that is wrong, each with its fix.
    """
    if not (isinstance(value, type) and issubclass(value, Runtime)):
        problems = [f"{value!r} is not a class derived from claw_core.hookspecs.Runtime"]
    elif value.api not in _SUPPORTED_API:
        problems = [
            f"it speaks version {value.api!r} of the contract, this core {_SUPPORTED_API[-1]}"
        ]
    else:
        problems = [problem for hook in HOOKS for problem in _hook_problems(value, hook)]
        problems += _typos(value)
        if not problems:
            return value
    raise PluginError(
        f"the plugin {name} of {origin} does not keep to the contract: {'; '.join(problems)}",
        runtime=name,
        remedy=f"pip install --upgrade {origin.distribution}, or tell its authors",
    )


def load_observers(report: Callable[[PluginError], None] | None = None) -> list[object]:
    """Load the observers among the entry points `claw.plugins`, each by itself.

    An entry point names an object or a module that has `around`, or a class that is made without
    arguments. What has no `around` is another kind of plugin and is passed over.

    Args:
        report: gets the error of each that is broken; by default it is logged.
    """
    report = report or (lambda error: _log.error("%s", error))
    observers: list[object] = []
    for entry in _discover(PLUGINS):
        try:
            value = _load(entry, PLUGINS)
            if hasattr(value, "around"):
                observer = value() if isinstance(value, type) else value
                observer_manager([observer])  # sees whether its arguments fit
                observers.append(observer)
        except PluginError as error:
            report(error if error.runtime else _broken(entry, f"cannot be held: {error.message}"))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - isolated, whatever a plugin does
            report(_broken(entry, f"cannot be made: {text_of(error)}"))
    return observers


def _discover(group: str) -> Iterator[_Entry]:
    """Read the entry points of a group, one distribution at a time.

    `importlib.metadata.entry_points` would fail as a whole on one malformed file, and would parse
    every distribution to find the few that have this group.
    """
    from importlib.metadata import distributions  # 40 ms that --help must not pay

    seen: set[str] = set()
    for distribution in distributions():
        try:
            if f"[{group}]" not in (distribution.read_text("entry_points.txt") or ""):
                continue
        except (OSError, ValueError):
            continue  # unreadable, so it cannot be known to have this group
        origin = _origin(distribution)
        key = re.sub(r"[-_.]+", "-", origin.distribution).lower()
        if key in seen:
            continue  # the same distribution further down sys.path, where imports do not look
        seen.add(key)
        try:
            found = {(e.name, e.value) for e in distribution.entry_points if e.group == group}
        except Exception as error:  # noqa: BLE001 - whatever the parser makes of a malformed file
            entry = _Entry(origin.distribution, "", origin)
            yield attrs.evolve(
                entry, error=_broken(entry, f"has unreadable entry points: {text_of(error)}")
            )
        else:
            yield from (_Entry(name, value, origin) for name, value in sorted(found))


def _origin(distribution: importlib.metadata.Distribution) -> Origin:
    try:
        name: str | None = distribution.metadata["Name"]
        version: str | None = distribution.metadata["Version"]
    except Exception:  # noqa: BLE001 - a damaged installation still has to be named somehow
        name = version = None
    place = f"an unnamed distribution in {distribution.locate_file('')}"
    return Origin(name or place, version or "(unknown version)")


def _load(entry: _Entry, group: str) -> Any:
    from importlib.metadata import EntryPoint

    if entry.error is not None:
        raise entry.error
    try:
        return EntryPoint(entry.name, entry.value, group).load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin that exits on import must not end claw
        raise _broken(entry, f"cannot be imported: {text_of(error)}") from error


def _broken(entry: _Entry, what: str, first: str = "") -> PluginError:
    name = entry.origin.distribution
    return PluginError(
        f"the plugin {entry.name} of {entry.origin} {what}",
        runtime=entry.name,
        remedy=f"{first} pip install --upgrade {name}, or pip uninstall {name}".strip(),
    )


def _unknown(asked: str, name: str, installed: tuple[str, ...]) -> UnknownRuntime:
    known = (*installed, *KNOWN)
    close = [name] if name in known else difflib.get_close_matches(name, known, 1)
    hints = [f"did you mean {one}?" for one in close if one != name]
    hints += [f"pip install {KNOWN[one]}" for one in close if one not in installed]
    return UnknownRuntime(
        f"no runtime {asked!r} is installed; installed: {', '.join(installed) or 'none'}",
        remedy=" ".join(hints) or "name one of the installed runtimes",
    )


def _hook_problems(backend: type[Runtime], hook: str) -> list[str]:
    """Say what is wrong with one hook of a class, each with its fix."""
    specification = inspect.signature(getattr(Runtime, hook))
    line = f"async def {hook}({', '.join(specification.parameters)})"
    if hook in backend.__abstractmethods__:
        return [f"hook {hook} is missing: add `{line}`"]
    method = inspect.getattr_static(backend, hook)
    if not inspect.isfunction(method):
        return [f"hook {hook} is no plain method: write `{line}`"]
    if inspect.isasyncgenfunction(method):
        return [f"hook {hook} is an async generator: return a value instead, `{line}`"]
    if not inspect.iscoroutinefunction(method):
        return [f"hook {hook} is not async: write `{line}`"]
    wanted = list(specification.parameters)[1:]
    parameters = list(inspect.signature(method).parameters.values())[1:]
    names = [
        parameter.name
        for parameter in parameters
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
    ]
    if names == wanted and len(names) == len(parameters):
        return []
    missing = [name for name in wanted if name not in names]
    known = {*wanted} & {*names}
    extra = [str(one).split(":")[0] for one in parameters if one.name not in known]
    details = [f"lacks {', '.join(missing)}"] if missing else []
    details += [f"has {', '.join(extra)}, which the contract does not know"] if extra else []
    details = details or ["has its arguments in another order"]
    return [f"hook {hook} {' and '.join(details)}: write `{line}`"]


def _typos(backend: type[Runtime]) -> list[str]:
    """Find methods that were meant to be hooks: close to one that is not implemented."""
    absent = [
        hook
        for hook in HOOKS
        if inspect.getattr_static(backend, hook) is inspect.getattr_static(Runtime, hook)
    ]
    methods = [
        name
        for name in dir(backend)
        if not name.startswith("_")
        and name not in HOOKS
        and inspect.iscoroutinefunction(inspect.getattr_static(backend, name))
    ]
    return [
        f"method {name} looks like the hook {hook}: rename it, or begin it with `_`"
        for name in methods
        for hook in difflib.get_close_matches(name, absent, 1, 0.8)
    ]
