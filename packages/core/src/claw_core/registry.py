"""Finds runtimes by their entry points, and loads just the one that is asked for.

Discovery reads metadata only. A plugin that is broken in whatever way is an error that names it
when it is asked for, a row when all are listed, and never the failure of another plugin.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import attrs

from claw_core import events
from claw_core._version import __version__
from claw_core.checks import problems
from claw_core.discovery import Origin, entry_points
from claw_core.errors import ClawError, PluginError, UnknownRuntime
from claw_core.hookspecs import Runtime
from claw_core.known import KNOWN, canonical, installation
from claw_core.observing import observer_manager, text_of
from claw_core.relay import Relay

RUNTIMES: Final = "claw.runtimes"
PLUGINS: Final = "claw.plugins"
# A source tree on PYTHONPATH has no installed metadata, and `claw run` must work there as well.
_EMBEDDED: Final = {"local": "claw_core.local.runtime:LocalRuntime"}
_loading = threading.RLock()
_log = logging.getLogger("claw")


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

    def recipe(self, name: str) -> Path | None:
        """Return the recipe that a runtime ships.

        Raises:
            UnknownRuntime, PluginError: as `resolve`.
        """
        return _checked(self._find(name)).recipe

    def resolve(self, name: str, settings: Mapping[str, Any] = {}) -> Relay:
        """Load one runtime and make it from its settings.

        Raises:
            UnknownRuntime: no installed distribution offers it.
            PluginError: it cannot be loaded, or does not keep to the contract.
            ClawError: it refuses its settings.
        """
        entry = self._find(name)
        backend_class = _checked(entry)
        try:
            with _stdout_kept():
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
        # A runtime may pin what its settings leave open, so that a reaper finds the same place.
        pinned = getattr(backend, "settings", settings)
        return Relay(entry.name, backend, self._observers, self._listener, pinned, entry.origin)

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
                _checked(entry)
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
            name = canonical(name)
        if name not in installed:
            raise _unknown(asked, name, installed)
        offers = [entry for entry in self._entries if entry.name == name]
        if len(offers) > 1:
            raise _offered_twice(offers, "runtime")
        return offers[0]


def load_observers(report: Callable[[PluginError], None]) -> dict[str, object]:
    """Load the observers among the entry points `claw.plugins`, each by itself.

    An entry point names an object or a module that has `around`, or a class that is made without
    arguments. What has no `around` is another kind of plugin and is passed over.

    Args:
        report: gets the error of each that is broken; its `runtime` is the plugin's name.

    Returns:
        The observers by the names of their entry points.
    """
    observers: dict[str, object] = {}
    for entry in _discover(PLUGINS):
        try:
            value = _load(entry)
            if hasattr(value, "around"):
                observer = value() if isinstance(value, type) else value
                observer_manager([observer])  # sees whether its arguments fit
                observers[entry.name] = observer
        except PluginError as error:
            report(error if error.runtime else _broken(entry, f"cannot be held: {error.message}"))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - isolated, whatever a plugin does
            report(_broken(entry, f"cannot be made: {text_of(error)}"))
    return observers


def load_plugin(name: str, group: str = PLUGINS) -> Any:
    """Load the entry point of a name among those of a group; None where there is none.

    Raises:
        PluginError: it cannot be loaded, or more than one distribution offers it.
    """
    offers = [entry for entry in _discover(group) if entry.name == name]
    if len(offers) > 1:
        raise _offered_twice(offers, "plugin")
    return _load(offers[0]) if offers else None


def _discover(group: str) -> Iterator[_Entry]:
    """Every entry point of a group; one that nobody could load comes with the error."""
    for point in entry_points(group):
        entry = _Entry(point.name, point.value or "", point.origin)
        if point.value is None:
            entry = attrs.evolve(entry, error=_broken(entry, "has unreadable entry points"))
        yield entry


def _load(entry: _Entry) -> Any:
    if entry.error is not None:
        raise entry.error
    module, _, name = entry.value.partition(":")
    try:
        with _stdout_kept():
            loaded = importlib.import_module(module.strip())
        return functools.reduce(getattr, filter(None, name.split(".")), loaded)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin that exits on import must not end claw
        raise _broken(entry, f"cannot be imported: {text_of(error)}") from error


@contextlib.contextmanager
def _stdout_kept() -> Iterator[None]:
    """Send what a plugin prints to standard error: standard output is the command's, or JSON."""
    with _loading, contextlib.redirect_stdout(sys.stderr):
        yield


def _checked(entry: _Entry) -> type[Runtime]:
    value = _load(entry)
    if found := problems(value):
        raise PluginError(
            f"the plugin {entry.name} of {entry.origin} does not keep to the contract:"
            f" {'; '.join(found)}",
            runtime=entry.name,
            remedy=f"pip install --upgrade {entry.origin.distribution}, or tell its authors",
        )
    backend: type[Runtime] = value
    return backend


def _broken(entry: _Entry, what: str, first: str = "") -> PluginError:
    name = entry.origin.distribution
    return PluginError(
        f"the plugin {entry.name} of {entry.origin} {what}",
        runtime=entry.name,
        remedy=f"{first} pip install --upgrade {name}, or pip uninstall {name}".strip(),
    )


def _offered_twice(offers: Sequence[_Entry], what: str) -> PluginError:
    both = " and ".join(str(entry.origin) for entry in offers)
    return PluginError(
        f"more than one distribution offers this {what}: {both}",
        runtime=offers[0].name,
        remedy=f"pip uninstall {' or '.join(one.origin.distribution for one in offers)}",
    )


def _unknown(asked: str, name: str, installed: tuple[str, ...]) -> UnknownRuntime:
    known = (*installed, *KNOWN)
    close = [name] if name in known else difflib.get_close_matches(name, known, 1)
    hints = [f"did you mean {one}?" for one in close if one != name]
    hints += [installation(one) for one in close if one not in installed]
    return UnknownRuntime(
        f"no runtime {asked!r} is installed; installed: {', '.join(installed) or 'none'}",
        remedy=" ".join(hints) or "name one of the installed runtimes",
    )
