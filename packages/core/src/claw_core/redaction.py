"""Keeps the values of secrets out of everything that claw says."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import urllib.parse
from collections.abc import Iterator, Mapping

import attrs

from claw_core import events
from claw_core.errors import ClawError

LINE = 8
"""Characters from which on a single line of a secret, of a private key say, is hidden by itself."""
_FRAME = re.compile(r"-----[A-Z0-9 ]+-----")
"""The first and the last line of every key."""


class Redactor:
    """Replaces values of secrets in texts; it learns more of them as sessions are opened."""

    def __init__(self, secrets: Mapping[str, str] = {}) -> None:
        self._labels: dict[str, str] = {}
        self._forms: list[str] = []
        self.learn(secrets)

    def learn(self, secrets: Mapping[str, str]) -> None:
        """Hide these values from now on, also as they look inside JSON, `repr` or a URL."""
        for name, value in secrets.items():
            for form in _forms(value):
                self._labels.setdefault(form, f"[secret {name}]")
        self._forms = sorted(self._labels, key=len, reverse=True)  # what contains another first

    def __call__(self, text: str) -> str:
        """Return the text without any of the values."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, self._labels[form])
        return text

    def events(self, listener: events.Listener) -> events.Listener:
        """A listener that gets every event without the values."""

        def told(event: events.Event) -> None:
            if isinstance(event, events.Notice | events.Progress):
                event = attrs.evolve(event, text=self(event.text))
            elif isinstance(event, events.PhaseEnded) and event.error:
                event = attrs.evolve(event, error=self(event.error))
            listener(event)

        return told

    @contextlib.contextmanager
    def logging(self) -> Iterator[None]:
        """Keep the values out of what claw logs meanwhile, also where it was logged with `%r`."""

        def hide(record: logging.LogRecord) -> bool:
            record.msg, record.args = self(record.getMessage()), ()
            return True

        logger = logging.getLogger("claw")
        logger.addFilter(hide)
        try:
            yield
        finally:
            logger.removeFilter(hide)


@contextlib.contextmanager
def redacted(redact: Redactor) -> Iterator[None]:
    """Take the values out of every failure of claw that leaves the block."""
    try:
        yield
    except BaseException as error:
        _clean(error, redact, set())
        raise


def _clean(error: BaseException | None, redact: Redactor, seen: set[int]) -> None:
    """Clean an error, what caused it, and what is in it."""
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    if isinstance(error, ClawError):
        error.redact(redact)
    for other in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        _clean(other, redact, seen)


def traces(value: str) -> frozenset[str]:
    """The single lines by which a secret can be found on a disk.

    None for a value that is so short that it could be anywhere by chance.
    """
    lines = {form for form in _forms(value) if len(form) >= LINE and len(form.splitlines()) == 1}
    return frozenset(line for line in lines if not _FRAME.fullmatch(line))


def _forms(value: str) -> set[str]:
    lines = [line for line in value.splitlines() if len(line) >= LINE]
    forms = set()
    for text in (value, *lines):
        quoted = urllib.parse.quote(text, safe="", errors="replace")
        forms |= {text, json.dumps(text)[1:-1], repr(text)[1:-1], quoted}
    return forms - {""}
