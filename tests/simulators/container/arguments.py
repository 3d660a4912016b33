"""Parses arguments as strictly as the command does, and complains in its words."""

from __future__ import annotations

from simulators.container.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Option:
    """An option.

    Args:
        names: such as `-n` and `--name`.
        value: what its value is called; None for a flag.
        repeated: whether it may be given several times.
        number: whether its value is a whole number.
        choices: the values that it takes, where not all.
    """

    def __init__(
        self,
        *names: str,
        value: str | None = None,
        repeated: bool = False,
        number: bool = False,
        choices: tuple[str, ...] = (),
    ) -> None:
        self.names, self.value, self.repeated = names, value, repeated
        self.number, self.choices = number, choices
        self.key = next((one for one in names if one.startswith("--")), names[0]).lstrip("-")

    def default(self) -> Any:
        """What it is if it is not given."""
        return [] if self.repeated else None if self.value else False


class Syntax:
    """What a command takes.

    Args:
        command: its words.
        options: its options.
        positionals: how its positional arguments are called.
        least: how many of them must be there.
        passthrough: whether everything after the first ones is left as it is.
        usage: the rest of its line of usage.
    """

    def __init__(
        self,
        command: str,
        options: tuple[Option, ...],
        positionals: tuple[str, ...] = (),
        *,
        least: int = 0,
        most: int | None = None,
        passthrough: int | None = None,
    ) -> None:
        self.command, self.options, self.positionals = command, options, positionals
        self.least, self.most, self.passthrough = least, most, passthrough
        self._named = {name: option for option in options for name in option.names}

    def usage(self) -> str:
        """The lines that follow an error."""
        words = " ".join(f"<{name}>" for name in self.positionals)
        rest = " [<arguments> ...]" if self.passthrough else ""
        line = f"Usage: container {self.command} [<options>] {words}{rest}".rstrip()
        return f"{line}\n  See 'container {self.command} --help' for more information."

    def parse(self, argv: list[str]) -> tuple[dict[str, Any], list[str]]:
        """Return the options by their long names, and the positional arguments.

        Raises:
            UsageError: what is wrong with them.
        """
        try:
            return self._parse(list(argv))
        except UsageError as error:
            raise UsageError(f"{error}\n{self.usage()}") from None

    def _parse(self, rest: list[str]) -> tuple[dict[str, Any], list[str]]:
        values = {option.key: option.default() for option in self.options}
        words: list[str] = []
        while rest:
            if self.passthrough is not None and len(words) >= self.passthrough:
                words += rest
                break
            word = rest.pop(0)
            if word == "--" and self.passthrough is None:
                words += rest
                break
            if word in {"-", "--"} or not word.startswith("-"):
                words.append(word)
            elif word.startswith("--"):
                self._long(word, rest, values)
            else:
                self._short(word, rest, values)
        if len(words) < self.least:
            raise UsageError(f"Missing expected argument '<{self.positionals[len(words)]}>'")
        if self.most is not None and len(words) > self.most:
            raise UsageError(f"Unexpected argument '{words[self.most]}'")
        return values, words

    def _long(self, word: str, rest: list[str], values: dict[str, Any]) -> None:
        name, equals, value = word.partition("=")
        option = self._named.get(name)
        if option is None:
            raise UsageError(f"Unknown option '{name}'")
        if option.value is None and equals:
            text = f"The option '{name}' does not take any value, but '{value}' was specified."
            raise UsageError(text)
        self._set(option, name, value if equals else None, rest, values)

    def _short(self, word: str, rest: list[str], values: dict[str, Any]) -> None:
        name, equals, value = word.partition("=")
        option = self._named.get(name)
        if option is not None:
            self._set(option, name, value if equals else None, rest, values)
            return
        letters = [f"-{letter}" for letter in word[1:]]
        if any(self._named.get(one) is None for one in letters):
            raise UsageError(f"Unknown option '{word}'")
        for letter in letters:
            self._set(self._named[letter], letter, None, rest, values)

    def _set(
        self, option: Option, name: str, value: str | None, rest: list[str], values: dict[str, Any]
    ) -> None:
        if option.value is None:
            values[option.key] = True
            return
        if value is None:
            # A value that looks like an option is none, unless it is joined by `=`.
            if not rest or (rest[0].startswith("-") and rest[0] != "-"):
                raise UsageError(f"Missing value for '{name} <{option.value}>'")
            value = rest.pop(0)
        wrong = f"The value '{value}' is invalid for '{name} <{option.value}>'"
        if option.choices and value not in option.choices:
            raise UsageError(wrong)
        parsed: Any = value
        if option.number:
            try:
                parsed = int(value)
            except ValueError:
                raise UsageError(wrong) from None
        if option.repeated:
            values[option.key].append(parsed)
        else:
            values[option.key] = parsed
