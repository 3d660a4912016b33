"""Names of signals."""

from __future__ import annotations

import signal

from simulators.container.errors import Failure


def number_of(name: str) -> int:
    """The number of a signal that is given by number or by name."""
    if name.isdigit():
        return int(name)
    upper = name.upper()
    try:
        return int(signal.Signals[upper if upper.startswith("SIG") else f"SIG{upper}"])
    except KeyError:
        raise Failure("invalidArgument", f"invalid signal: {name}") from None
