"""Command lines of `docker`, as far as NanoClaw uses them; everything else is refused by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import attrs

from claw_core import units
from claw_core.errors import ConfigError
from claw_core.model import Mount, Network, Resources

T = TypeVar("T")
_SWITCH: Final = ""


@attrs.frozen
class Run:
    """What `docker run` is asked for.

    Attributes:
        name: of the container.
        image: what it starts from.
        argv: what stands behind the image.
        entrypoint: replaces the image's; None keeps it.
        labels: of the container.
        env: environment of its program.
        mounts: in the order in which they are asked for.
        hosts: `name:address` of hosts to be known by name.
        user: `UID:GID`, or None for the image's.
        network: `none` or `default`.
        resources: upper bounds.
        interactive: whether standard input is wanted.
    """

    name: str
    image: str
    argv: tuple[str, ...] = ()
    entrypoint: str | None = None
    labels: Mapping[str, str] = attrs.field(factory=dict)
    env: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    mounts: tuple[Mount, ...] = ()
    hosts: tuple[str, ...] = ()
    user: str | None = None
    network: Network = "default"
    resources: Resources = Resources()
    interactive: bool = False


_RUN: Final[Mapping[str, str]] = {
    "-i": "--interactive",
    "-e": "--env",
    "-v": "--volume",
    "-u": "--user",
    "-l": "--label",
    "-m": "--memory",
}
_RUN_SWITCHES: Final = frozenset({"--interactive", "--rm", "--init"})
_RUN_VALUES: Final = frozenset(
    {
        "--name", "--label", "--env", "--volume", "--mount", "--add-host", "--user", "--entrypoint",
        "--network", "--cpus", "--memory", "--pids-limit", "--cap-drop", "--security-opt",
    }
)  # fmt: skip


def run(words: Sequence[str]) -> Run:
    """Read what stands behind `docker run`.

    Raises:
        ConfigError: an option that claw cannot follow; nothing was started.
    """
    given, rest = options("run", words, _RUN, _RUN_SWITCHES, _RUN_VALUES)
    if not rest:
        raise _wrong("no image is named")
    if "--rm" not in given:
        raise _wrong("a container of claw never stays: --rm is missing")
    last = {name: values[-1] for name, values in given.items()}
    for name, wanted in (("--cap-drop", {"ALL", "all"}), ("--security-opt", _NO_PRIVILEGES)):
        for value in given.get(name, ()):
            if value not in wanted:
                raise _wrong(f"{name} {value} is not supported; claw drops every privilege itself")
    if last.get("--network", "bridge") not in {"none", "bridge", "default"}:
        raise _wrong(f"--network {last['--network']} is not supported, only none and the default")
    return Run(
        name=last.get("--name", ""),
        image=rest[0],
        argv=tuple(rest[1:]),
        entrypoint=last.get("--entrypoint"),
        labels=dict(_pair(label) for label in given.get("--label", ())),
        env=dict(_variables(given.get("--env", ()))),
        mounts=tuple(_mounts(given)),
        hosts=tuple(given.get("--add-host", ())),
        user=last.get("--user"),
        network="none" if last.get("--network") == "none" else "default",
        resources=Resources(
            _number("--cpus", last, float),
            _number("--memory", last, units.size),
            _number("--pids-limit", last, int),
        ),
        interactive="--interactive" in given,
    )


_NO_PRIVILEGES: Final = {"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"}


def options(
    verb: str,
    words: Sequence[str],
    short: Mapping[str, str],
    switches: frozenset[str],
    values: frozenset[str],
) -> tuple[dict[str, list[str]], list[str]]:
    """Split words into options, up to the first operand, and the rest.

    Args:
        verb: for what is said.
        words: what stands behind the verb.
        short: the long names of short options.
        switches: options without a value.
        values: options with one.

    Raises:
        ConfigError: an option is not among these, or lacks its value.
    """
    given: dict[str, list[str]] = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        for name, value in _spelled(word, short, switches):
            if name in switches and value in {None, "true"}:
                given.setdefault(name, []).append(_SWITCH)
            elif name not in values:
                raise _wrong(f"the option {name} is not supported", verb)
            elif value is not None:
                given.setdefault(name, []).append(value)
            elif rest:
                given.setdefault(name, []).append(rest.pop(0))
            else:
                raise _wrong(f"the option {name} lacks its value", verb)
    return given, rest


def _spelled(
    word: str, short: Mapping[str, str], switches: frozenset[str]
) -> Iterator[tuple[str, str | None]]:
    """The options of one word: `--name=value`, `-it`, `-eNAME=value`."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        yield name, value if equals else None
        return
    letters = word[1:]
    while letters:
        letter, letters = f"-{letters[0]}", letters[1:]
        name = short.get(letter, letter)
        if name in switches or not letters:
            yield name, None
        else:
            yield name, letters.removeprefix("=")
            return


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _variables(texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        name, equals, value = text.partition("=")
        if equals:
            yield name, value
        elif name in os.environ:  # as docker does it
            yield name, os.environ[name]


def _mounts(given: Mapping[str, Sequence[str]]) -> Iterator[Mount]:
    for text in given.get("--volume", ()):
        source, _, rest = text.partition(":")
        target, _, mode = rest.partition(":")
        if not source.startswith("/") or not target.startswith("/") or mode not in _MODES:
            raise _wrong(f"-v {text} is not supported, only /SOURCE:/TARGET[:ro]")
        yield Mount(Path(source), target, writable=mode != "ro", authorised=True)
    for text in given.get("--mount", ()):
        fields = dict(_pair(part) for part in text.split(","))
        source = fields.pop("source", "") or fields.pop("src", "")
        target = fields.pop("target", "") or fields.pop("dst", "")
        readonly = fields.pop("readonly", "false") in {"", "true", "1"}
        if fields != {"type": "bind"} or not source.startswith("/") or not target.startswith("/"):
            raise _wrong(
                f"--mount {text} is not supported, only type=bind,source=/S,target=/T[,readonly]"
            )
        yield Mount(Path(source), target, writable=not readonly, authorised=True)


_MODES: Final = {"", "ro", "rw"}


def _number(name: str, given: Mapping[str, str], read: Callable[[str], T]) -> T | None:
    try:
        return read(given[name]) if name in given else None
    except (ValueError, ConfigError):
        raise _wrong(f"{name} {given[name]} cannot be read") from None


def _wrong(what: str, verb: str = "run") -> ConfigError:
    return ConfigError(
        f"docker {verb}: {what}",
        cleaned="nothing was started",
        remedy="see docs/how-to/nanoclaw-shim.md for what the shim understands",
    )
