"""How claw speaks: errors and tables on a terminal, or JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import click

from claw_core.errors import ClawError, ConfigError


def say(text: str) -> None:
    """Write one message of claw itself to standard error."""
    # Only the standard error of a terminal or a pipe: losing a message must not lose the run.
    with contextlib.suppress(OSError):
        sys.stderr.write(f"claw: {harmless(text)}\n")
        sys.stderr.flush()


def harmless(text: str) -> str:
    """A text whose letters cannot move the cursor: agents have a say in some of them."""
    return "".join(one if one.isprintable() or one in "\n\t" else repr(one)[1:-1] for one in text)


def document(value: Any) -> None:
    """Write one JSON document to standard output."""
    click.echo(json.dumps(value, indent=2))


def table(rows: Sequence[Sequence[str]]) -> None:
    """Write aligned columns; the first row is the heading, and no cell breaks its line."""
    cells = [[harmless(" ".join(cell.split())) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def age(seconds: float | None) -> str:
    """A time that has passed, as people say it."""
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: int | None) -> str:
    """A number of bytes, as people say it."""
    if count is None:
        return "-"
    for unit, length in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} B"


def failures(error: BaseException) -> Iterator[ClawError]:
    """Every failure of claw in an error or a group of errors."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from failures(part)
    elif isinstance(error, ClawError):
        yield error


@contextlib.contextmanager
def reporting() -> Iterator[None]:
    """Turn a failure of claw into its message and exit code."""
    try:
        yield
    except (ClawError, BaseExceptionGroup) as error:
        leave(error)


def leave(error: BaseException) -> NoReturn:
    """Say what failed and end with the code that belongs to it; other errors are raised again."""
    known = list(failures(error))
    if not known:
        raise error
    for failure in known:
        say(str(failure))
    raise SystemExit(exit_code(known))


def exit_code(known: Sequence[ClawError]) -> int:
    """The code of the first failure: what went wrong first decides, not the teardown after it."""
    return known[0].exit_code


class Parsed(click.ParamType[Any]):
    """A click type from one of core's parsers, so that a wrong value is a usage error."""

    def __init__(self, name: str, parser: Any) -> None:
        self.name = name
        self._parser = parser

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse a text; values that are parsed already pass."""
        if not isinstance(value, str):
            return value
        try:
            return self._parser(value)
        except ConfigError as error:
            self.fail(f"{error.message} ({error.remedy})", param, ctx)
