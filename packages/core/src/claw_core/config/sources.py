"""The files and the environment, each as settings or as the list of what is wrong with it."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from claw_core.config.files import Unreadable, read
from claw_core.config.settings import Settings, Source

if TYPE_CHECKING:
    from claw_core.config.documents import ClawToml, GroupFile

T = TypeVar("T")

ENVIRONMENT: Final[Mapping[str, str]] = {
    "CONTAINER_RUNTIME": "runtime",
    "AGENT_RUNTIME": "agent",
    "TART_BASE_IMAGE": "runtimes.tart.image",
    "TART_VM_USERNAME": "runtimes.tart.username",
    "TART_SSH_TIMEOUT": "runtimes.tart.ssh_timeout",
}
"""NanoClaw's names, and what they set."""
RUNTIME_SECRETS: Final[Mapping[str, tuple[str, ...]]] = {"tart": ("TART_VM_PASSWORD",)}
"""Secrets that a runtime itself needs; commands do not get them."""


class Problems(Exception):
    """What is wrong with one source, each with the name of the source and the path in it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def claw_toml(path: Path) -> ClawToml | None:
    """Read `claw.toml`; None where there is none.

    Raises:
        Problems: all that is wrong with it.
    """

    def kind() -> type[ClawToml]:
        from claw_core.config.documents import ClawToml  # many have no such file

        return ClawToml

    return document(path, kind)


def document(path: Path, kind: Callable[[], type[T]]) -> T | None:
    """Read a TOML file of one of the owner's; None where there is none.

    Args:
        path: the file.
        kind: gives the class that describes it, once there is a text.

    Raises:
        Problems: all that is wrong with it.
    """

    def parse(text: str) -> T:
        import tomllib

        return _structured(tomllib.loads(text), kind())

    return _parsed(path, str(path), parse, trusted=True)


def group_file(path: Path, name: str) -> Source | None:
    """Read a group's `config.json`; None where there is none.

    Raises:
        Problems: all that is wrong with it.
    """

    def parse(text: str) -> Source:
        from claw_core.config.documents import GroupFile

        document: GroupFile = _structured(json.loads(text, object_pairs_hook=_unique), GroupFile)
        return document.source(name)

    return _parsed(path, name, parse, trusted=False)


def dotenv(path: Path) -> dict[str, str]:
    """Read `.env` by the rules of python-dotenv, expanding nothing; {} where there is none.

    Raises:
        Problems: the lines that are no assignments.
    """

    def parse(text: str) -> dict[str, str]:
        import io

        from dotenv.parser import parse_stream

        from claw_core.config.parsers import Wrongs, receivable

        values, problems = {}, []
        for binding in parse_stream(io.StringIO(text)):
            if binding.error:
                problems.append(f"line {binding.original.line}: expected NAME=value")
            elif binding.key is not None and binding.value is not None:
                if not receivable(binding.key + binding.value):
                    problems.append(f"line {binding.original.line}: no program can receive that")
                values[binding.key] = binding.value
        if problems:
            raise Wrongs(problems)
        return values

    return _parsed(path, ".env", parse, trusted=True) or {}


def environment(variables: Mapping[str, str], name: str) -> Source:
    """What NanoClaw's names in an environment set; an empty value sets nothing.

    Raises:
        Problems: values that are not what they should be.
    """
    fields: dict[str, Any] = {}
    tart: dict[str, Any] = {}
    paths, problems = {}, []
    for variable, key in ENVIRONMENT.items():
        value: Any = variables.get(variable)
        if not value:
            continue
        paths[key] = variable
        if variable == "TART_SSH_TIMEOUT":
            if (
                not value.isascii()
                or not value.isdigit()
                or not 0 < len(value) < 12
                or not int(value)
            ):
                problems.append(f"{name}: {variable}: expected milliseconds, got {value[:40]!r}")
                continue
            value = int(value) / 1000
        if key.startswith("runtimes.tart."):
            tart[key.rpartition(".")[2]] = value
        else:
            fields[key] = value
    if problems:
        raise Problems(problems)
    return Source(Settings(**fields, runtimes={"tart": tart} if tart else {}), name, paths)


def _parsed(path: Path, name: str, parse: Callable[[str], T], *, trusted: bool) -> T | None:
    """Read and parse a file, and say of whatever is wrong where it is."""
    try:
        text = read(path, trusted=trusted)
    except Unreadable as error:
        raise Problems([f"{name}: {error}"]) from None
    if text is None:
        return None
    from claw_core.config.parsers import Wrongs

    try:
        return parse(text)
    except Wrongs as error:
        raise Problems([f"{name}: {_bare(problem)}" for problem in error.problems]) from None
    except RecursionError:
        raise Problems([f"{name}: it is nested too deeply"]) from None
    except ValueError as error:  # not TOML, not JSON
        raise Problems([f"{name}: {error}"]) from None


def _bare(problem: str) -> str:
    """A problem of the document as a whole has no path, any other begins with a dot."""
    return problem.removeprefix(".").removeprefix(": ")


def _structured(document: object, kind: type[T]) -> T:
    from claw_core.config.structure import structure

    return structure(document, kind)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one that names a key twice could mean two things."""
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = collections.Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"names {twice!r} more than once")
    return found
