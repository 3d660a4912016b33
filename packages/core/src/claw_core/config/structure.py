"""From parsed documents to values of the schema, with every error at once."""

from __future__ import annotations

import difflib
import functools
import json
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args, get_origin

import attrs

from claw_core import units
from claw_core.config.settings import (
    Duration,
    HostPath,
    InnerPath,
    Milliseconds,
    Size,
    Variables,
)
from claw_core.errors import ConfigError
from claw_core.isolation import Isolation
from claw_core.model import Mount, Network

if TYPE_CHECKING:
    import cattrs

T = TypeVar("T")
HINTS: Final = 20
"""Unknown keys for which the one that was meant is looked for; more are no slip."""
MOST: Final = 10**12
"""The largest number that means anything in a configuration."""


class Wrong(ValueError):
    """A value is not what is expected; the text names what is."""


class Wrongs(Exception):
    """What is wrong in a document, each with its path."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def structure(document: object, kind: type[T]) -> T:
    """Return a document as a value of the schema.

    Raises:
        Wrongs: everything that is wrong in it.
    """
    try:
        return converter().structure(document, kind)
    except RecursionError:
        raise Wrongs(["it is nested too deeply"]) from None
    except Exception as error:
        raise Wrongs(list(_problems(error, ""))) from error


def receivable(text: str) -> bool:
    """Whether a program can receive a text as an argument or in its environment."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def printable(text: str) -> bool:
    """Whether a text can stand in a message without moving the cursor of a terminal."""
    return receivable(text) and text.isprintable()


def kind_of(value: object) -> str:
    """What a value is, where the value itself is not to be quoted."""
    kinds = {str: "text", bool: "a flag", int: "a number", float: "a number", dict: "a table"}
    return kinds.get(type(value), "a list" if isinstance(value, list) else "something else")


def shown(value: object) -> str:
    """A wrong value as an error may quote it."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def converter() -> cattrs.Converter:
    """A converter that never turns one type into another."""
    import cattrs  # 20 ms of processor time, for those who have a configuration
    from cattrs.gen import make_dict_structure_fn

    made = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True, use_alias=True)
    for kind, parse in _PARSERS.items():
        hook = functools.partial(_apply, parse)
        if isinstance(kind, type):
            made.register_structure_hook(kind, hook)
        else:
            made.register_structure_hook_func(functools.partial(operator.eq, kind), hook)
    made.register_structure_hook_factory(
        attrs.has,
        lambda kind: _table(
            make_dict_structure_fn(
                kind,
                made,
                _cattrs_forbid_extra_keys=True,
                _cattrs_detailed_validation=True,
                _cattrs_use_alias=True,
            )
        ),
    )
    made.register_structure_hook_factory(
        functools.partial(_is_generic, tuple), lambda kind: _list(made, get_args(kind)[0])
    )
    made.register_structure_hook_factory(
        functools.partial(_is_generic, Mapping), lambda kind: _mapping(made, get_args(kind)[1])
    )
    return made


def _is_generic(origin: Any, kind: Any) -> bool:
    return get_origin(kind) is origin


def _apply(parse: Callable[[Any], Any], value: Any, kind: Any) -> Any:
    return parse(value)


def _table(inner: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def parse(value: Any, kind: Any) -> Any:
        if not isinstance(value, dict):
            raise Wrong(f"expected a table, got {shown(value)}")
        return inner(value, kind)

    return parse


def _list(made: cattrs.Converter, element: Any) -> Callable[[Any, Any], Any]:
    inner = made.get_structure_hook(element)

    def parse(value: Any, _: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise Wrong(f"expected a list, got {shown(value)}")
        return tuple(_each(enumerate(value), lambda one: inner(one, element), "[{}]"))

    return parse


def _mapping(made: cattrs.Converter, element: Any) -> Callable[[Any, Any], Any]:
    inner = made.get_structure_hook(element)

    def parse(value: Any, _: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Wrong(f"expected a table, got {shown(value)}")
        found = _each(value.items(), lambda one: inner(one, element), ".{}")
        return dict(zip(value, found, strict=True))

    return parse


def _each(items: Any, parse: Callable[[Any], Any], label: str) -> list[Any]:
    """Parse all, and say of all that are wrong where they are."""
    found: list[Any] = []
    problems: list[str] = []
    for key, value in items:
        try:
            found.append(parse(value))
        except Exception as error:  # noqa: BLE001 - collected, and raised together below
            problems += _problems(error, label.format(key))
    if problems:
        raise Wrongs(problems)
    return found


def _problems(error: BaseException, path: str) -> Iterator[str]:
    """Every leaf of an error of cattrs, as `path: what is expected`."""
    from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError

    if isinstance(error, ClassValidationError):
        located, others = error.group_exceptions()
        for part, note in located:
            yield from _problems(part, f"{path}.{_alias(error.cl, note.name)}")
        for part in others:
            yield from _problems(part, path)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [field.alias for field in attrs.fields(error.cl)]
        for number, key in enumerate(sorted(error.extra_fields)):
            close = difflib.get_close_matches(key, known, 1) if number < HINTS else []
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            yield f"{path}.{shown(key)[1:-1]}: unknown key; {hint}"
    elif isinstance(error, Wrongs):
        yield from (f"{path}{problem}" for problem in error.problems)
    else:
        yield f"{path}: {error}"


def _alias(kind: Any, name: str) -> str:
    return str(getattr(attrs.fields(kind), name).alias)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Wrong(f"expected text, got {shown(value)}")
    if not value:
        raise Wrong("expected text, got an empty one")
    if not printable(value):
        raise Wrong(f"expected printable text, got {shown(value)}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(f"expected a number, got {shown(value)}")
    if not (0 < value < MOST):
        raise Wrong(f"expected a number above zero, got {shown(value)}")
    return float(value)


def _milliseconds(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < MOST:
        raise Wrong(f"expected milliseconds, got {shown(value)}")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < MOST:
        raise Wrong(f"expected a whole number above zero, got {shown(value)}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Wrong(f"expected true or false, got {shown(value)}")
    return value


def _choice(choices: Mapping[str, Any]) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if not isinstance(value, str) or value not in choices:
            raise Wrong(f"expected one of {', '.join(choices)}, got {shown(value)}")
        return choices[value]

    return parse


def _unit(parse: Callable[[str], float], example: str) -> Callable[[Any], Any]:
    def parsed(value: Any) -> float:
        try:
            if isinstance(value, str):
                return parse(value)
        except ConfigError:
            pass  # the sentence below says the same, and says it for numbers too
        raise Wrong(f"expected {example}, got {shown(value)}")

    return parsed


def _variables(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Wrong(f"expected a table, got {kind_of(value)}")
    for name in value:
        if not name or "=" in name or not printable(name):
            raise Wrong(f"{name!r} cannot be the name of a variable")
    return dict(zip(value, _each(value.items(), _variable, ".{}"), strict=True))


def _variable(value: Any) -> str:
    if not isinstance(value, str):
        raise Wrong(f"expected text, got {kind_of(value)}")  # it may be a secret
    if not receivable(value):
        raise Wrong("expected text without characters that no program can receive")
    return value


def _host_path(value: Any) -> Path:
    """An absolute path, where `~` is the home; a relative one would depend on who starts claw."""
    try:
        path = Path(_text(value)).expanduser()
    except RuntimeError:
        raise Wrong(f"there is no home directory for {shown(value)}") from None
    if not path.is_absolute():
        raise Wrong(f"expected an absolute path or one with ~, got {shown(value)}")
    return path


def _inner_path(value: Any) -> str:
    text = _text(value)
    if text.startswith("/") or ":" in text or ".." in text.split("/"):
        raise Wrong(f"expected a relative path without .., got {shown(value)}")
    return text


def _mount(value: Any) -> Mount:
    try:
        source, target, writable = units.mount(_text(value))
    except ConfigError as error:
        raise Wrong(error.message) from None
    if not target.startswith("/") or ".." in target.split("/"):
        raise Wrong(f"expected an absolute path without .. as the target, got {shown(target)}")
    return Mount(_host_path(source), target, writable=writable, authorised=True)


def _plain(value: Any) -> Any:
    """What a runtime's table may hold: it is kept in the ledger as JSON."""
    if isinstance(value, dict):
        return dict(zip(value, _each(value.items(), _plain, ".{}"), strict=True))
    if isinstance(value, list):
        return _each(enumerate(value), _plain, "[{}]")
    if isinstance(value, str):
        return _text(value) if value else value
    if isinstance(value, float) and not math.isfinite(value):
        raise Wrong(f"expected a number, got {shown(value)}")
    if value is not None and not isinstance(value, bool | int | float):
        raise Wrong(f"expected text, a number, a flag, a list or a table, got {kind_of(value)}")
    return value


_PARSERS: Final[Mapping[Any, Callable[[Any], Any]]] = {
    str: _text,
    float: _number,
    int: _whole,
    bool: _flag,
    Any: _plain,
    Duration: _unit(units.duration, 'a duration such as "90s" or "10m"'),
    Size: _unit(units.size, 'a size such as "512m" or "2g"'),
    Milliseconds: _milliseconds,
    Isolation: _choice({level.label: level for level in Isolation}),
    Network: _choice({"none": "none", "default": "default"}),
    Variables: _variables,
    HostPath: _host_path,
    InnerPath: _inner_path,
    Mount: _mount,
}
