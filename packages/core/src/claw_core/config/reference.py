"""The reference of `claw.toml`, and a complete example, from the schema itself.

`python -m claw_core.config.reference table` and `... example` print what the documentation holds.
"""

from __future__ import annotations

import sys
import textwrap
import types
from collections.abc import Iterator, Mapping
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import attrs

from claw_core.config.documents import ClawToml, MountPolicyTable
from claw_core.config.settings import Retention, Settings

KINDS: Final[Mapping[str, str]] = {
    "Duration": "duration",
    "Size": "size",
    "Isolation": "level",
    "Variables": "table of text",
    "str": "text",
    "int": "whole number",
    "float": "number",
    "Mount": "mount",
    "AllowedRoot": "table of `path` and `writable`",
    "Mapping": "table of tables",
}
HEADER: Final = """\
A complete claw.toml: every setting, as it might be set. Settings at the top hold for every run,
those of [groups.NAME] for one group. Nothing here is required.
"""


def table() -> Iterator[str]:
    """The rows of the reference, as a table of Markdown."""
    yield "| setting | type | meaning |"
    yield "|---|---|---|"
    for prefix, kind in (
        ("", Settings),
        ("", ClawToml),
        ("mount_policy.", MountPolicyTable),
        ("snapshots.", Retention),
    ):
        for field in _fields(kind):
            word = _word(get_type_hints(kind)[field.name])
            yield f"| `{prefix}{field.name}` | {word} | {field.metadata['help']} |"


def example() -> Iterator[str]:
    """The lines of a complete, commented `claw.toml`."""
    yield from _comment(HEADER)
    yield ""
    tables = {"env", "runtimes"}
    for field in (*_fields(Settings), *_fields(ClawToml)):
        if field.name not in tables:
            yield from _set(field)
    yield from ("# Variables of every command.", "[env]", 'TZ = "UTC"', "")
    yield from ("# The runtimes' own tables.", "[runtimes.local]", 'engine = "auto"', "")
    yield "[mount_policy]"
    for field in _fields(MountPolicyTable):
        yield from _set(field)
    yield "[snapshots]"
    for field in _fields(Retention):
        yield from _set(field)
    yield from _comment("For one group, any of the settings at the top; stronger than those.")
    yield from ("[groups.finance]", 'runtime = "tart"', 'min_isolation = "vm"', "")
    yield from ("[groups.finance.env]", 'LEDGER = "2026"')


def _fields(kind: type[Any]) -> Iterator[Any]:
    """The fields of a table that it does not inherit, as far as they are settings themselves."""
    inherited = {field.name for base in kind.__mro__[1:-1] for field in attrs.fields(base)}
    for field in attrs.fields(kind):
        if field.name not in inherited and "help" in field.metadata:
            yield field


def _set(field: Any) -> Iterator[str]:
    yield from _comment(field.metadata["help"])
    yield f"{field.name} = {field.metadata['example']}"
    yield ""


def _comment(text: str) -> Iterator[str]:
    yield from (f"# {line}" for line in textwrap.wrap(text, 95))


def _word(hint: Any) -> str:
    """A type as people call it."""
    if get_origin(hint) in {Union, types.UnionType}:
        return _word(next(part for part in get_args(hint) if part is not type(None)))
    if get_origin(hint) is tuple:
        return f"list of {_word(get_args(hint)[0])}"
    name = getattr(hint, "__name__", str(hint))
    return KINDS.get(name, "`none` or `default`" if name == "Literal" else name)


if __name__ == "__main__":
    sys.stdout.write("\n".join({"table": table, "example": example}[sys.argv[1]]()) + "\n")
