"""How `tart` fails: an exit code and a text, with or without `Error: ` before it."""

from __future__ import annotations


class Failure(Exception):
    """The command ends with this text on stderr.

    Tart prints its own runtime errors bare; what is thrown while arguments are validated, and any
    error of another type, gets the prefix `Error: `.
    """

    def __init__(self, text: str, code: int = 1, *, prefix: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.prefix = prefix


class Usage(Failure):
    """The arguments are wrong: exit code 64, and the usage of the verb after the text."""

    def __init__(self, text: str) -> None:
        super().__init__(text, 64, prefix=True)


def missing(name: str) -> Failure:
    return Failure(f'the specified VM "{name}" does not exist', 2)


def not_running(name: str) -> Failure:
    return Failure(f'VM "{name}" is not running', 2)


def no_file(name: str) -> Failure:
    """A file that went away while it was looked at."""
    text = f"The file “{name}” couldn’t be opened because there is no such file."
    return Failure(text, prefix=True)
