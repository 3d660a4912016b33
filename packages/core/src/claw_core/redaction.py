"""Keeps the values of secrets out of everything that claw says."""

from __future__ import annotations

import contextlib
import json
import logging
import urllib.parse
from collections.abc import Iterator, Mapping

import attrs

from claw_core import events
from claw_core.errors import ClawError

LINE = 8
"""Characters from which on a single line of a secret, of a private key say, is hidden by itself."""


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


def _forms(value: str) -> set[str]:
    lines = [line for line in value.splitlines() if len(line) >= LINE]
    forms = set()
    for text in (value, *lines):
        quoted = urllib.parse.quote(text, safe="", errors="replace")
        forms |= {text, json.dumps(text)[1:-1], repr(text)[1:-1], quoted}
    return forms - {""}
