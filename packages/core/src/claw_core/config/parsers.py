"""What single values of a configuration may be; none is ever turned from one type into another."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from claw_core import units
from claw_core.config.settings import (
    Duration,
    HostPath,
    InnerPath,
    Milliseconds,
    Script,
    Size,
    Variables,
)
from claw_core.errors import ConfigError
from claw_core.isolation import Isolation
from claw_core.model import Mount, Network

MOST: Final = 10**12
"""The largest number that means anything in a configuration."""


class Wrong(ValueError):
    """A value is not what is expected; the text names what is."""


class Wrongs(Exception):
    """What is wrong in a document, each with its path."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


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


def described(error: Exception, path: str) -> Iterator[str]:
    """What is wrong at a path, as its parser says it."""
    if isinstance(error, Wrongs):
        yield from (f"{path}{problem}" for problem in error.problems)
    else:
        yield f"{path}: {error}"


def each(
    items: Iterable[tuple[Any, Any]],
    parse: Callable[[Any], Any],
    label: str,
    describe: Callable[[Exception, str], Iterator[str]] = described,
) -> list[Any]:
    """Parse all, and say of all that are wrong where they are.

    Args:
        items: keys and values.
        parse: makes something of a value.
        label: how a key stands in a path.
        describe: tells what an error means at a path.

    Raises:
        Wrongs: all that is wrong.
    """
    found: list[Any] = []
    problems: list[str] = []
    for key, value in items:
        try:
            found.append(parse(value))
        except Exception as error:  # noqa: BLE001 - collected, and raised together below
            problems += describe(error, label.format(key))
    if problems:
        raise Wrongs(problems)
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Wrong(f"expected text, got {shown(value)}")
    if not value:
        raise Wrong("expected text, got an empty one")
    if not printable(value):
        raise Wrong(f"expected printable text, got {shown(value)}")
    return value


def _script(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Wrong(f"expected a program, got {shown(value)}")
    if not receivable(value):
        raise Wrong("expected a program without characters that no shell can receive")
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
    return dict(zip(value, each(value.items(), _variable, ".{}"), strict=True))


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
        return dict(zip(value, each(value.items(), _plain, ".{}"), strict=True))
    if isinstance(value, list):
        return each(enumerate(value), _plain, "[{}]")
    if isinstance(value, str):
        return _text(value) if value else value
    if isinstance(value, float) and not math.isfinite(value):
        raise Wrong(f"expected a number, got {shown(value)}")
    if value is not None and not isinstance(value, bool | int | float):
        raise Wrong(f"expected text, a number, a flag, a list or a table, got {kind_of(value)}")
    return value


PARSERS: Final[Mapping[Any, Callable[[Any], Any]]] = {
    str: _text,
    Script: _script,
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
