"""Command lines as swift-argument-parser reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simulators.tart.errors import Usage

FLAG, VALUE, MANY = "flag", "value", "many"


class Arguments:
    """What a command line says: `flag(...)`, `value(...)`, `values(...)`, and `names`."""

    def __init__(self) -> None:
        self._options: dict[str, list[str]] = {}
        self.names: list[str] = []

    def flag(self, option: str) -> bool:
        return option in self._options

    def value(self, option: str, default: str = "") -> str:
        return self._options.get(option, [default])[-1]

    def values(self, option: str) -> list[str]:
        return self._options.get(option, [])

    def number(self, option: str, default: int) -> int:
        """The whole number of an option.

        Raises:
            Usage: it is none.
        """
        text = self.value(option, str(default))
        if not text.lstrip("-").isdigit():
            what = option.lstrip("-")
            raise Usage(f"The value '{text}' is invalid for '{option} <{what}>'")
        return int(text)

    def add(self, option: str, value: str) -> None:
        self._options.setdefault(option, []).append(value)


def parse(
    argv: Sequence[str],
    options: Mapping[str, str],
    names: Sequence[str],
    *,
    verbatim: bool = False,
) -> Arguments:
    """Read the arguments of a verb.

    Args:
        options: its options, each `FLAG`, `VALUE`, `MANY`, or the long name that it is short for.
        names: its positional arguments; one that ends in `...` may be repeated, one that begins
            with `?` be left out.
        verbatim: everything after the first positional argument is one too.

    Raises:
        Usage: it does not parse.
    """
    found = Arguments()
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--" and not (verbatim and found.names):
            found.names += rest
            break
        if word.startswith("-") and word != "-":
            _option(found, word, rest, options)
        else:
            found.names.append(word)
            if verbatim:
                found.names += rest
                break
    _check(found.names, names)
    return found


def _option(found: Arguments, word: str, rest: list[str], options: Mapping[str, str]) -> None:
    option, equals, value = word.partition("=")
    kind = options.get(option)
    if kind is not None and kind.startswith("--"):
        option, kind = kind, options[kind]
    if kind is None:
        raise Usage(f"Unknown option '{option}'")
    if kind == FLAG:
        found.add(option, "")
        return
    if not equals:
        if not rest or (rest[0].startswith("-") and not rest[0].lstrip("-").isdigit()):
            raise Usage(f"Missing value for '{option} <{option.lstrip('-')}>'")
        value = rest.pop(0)
    found.add(option, value)


def _check(given: Sequence[str], names: Sequence[str]) -> None:
    needed = [name for name in names if not name.startswith("?")]
    if len(given) < len(needed):
        what = needed[len(given)].removesuffix("...")
        raise Usage(f"Missing expected argument '<{what}>'")
    if len(given) > len(names) and not (names and names[-1].endswith("...")):
        raise Usage(f"Unexpected argument '{given[len(names)]}'")
