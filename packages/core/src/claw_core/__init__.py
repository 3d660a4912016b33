"""claw: run agents in isolated, disposable runtimes and leave nothing of them behind.

Names are imported when they are first used, so that `import claw_core` costs next to nothing.
"""

from __future__ import annotations

from claw_core._version import __version__

TYPE_CHECKING = False  # `typing` itself would cost as much as everything else together
if TYPE_CHECKING:
    from typing import Any, Final

    from claw_core.blocking import run
    from claw_core.errors import ClawError
    from claw_core.hookspecs import Observer, Runtime, hookimpl
    from claw_core.isolation import Axes, Extent, Isolation
    from claw_core.model import (
        IO,
        Assessment,
        Command,
        Description,
        Exit,
        Instance,
        Mount,
        Refusal,
        Resources,
        Spec,
    )
    from claw_core.router import Capture, Result, Router
    from claw_core.session import Deadlines, Session

_HOMES: Final[dict[str, str]] = {
    "Assessment": "model",
    "Axes": "isolation",
    "Capture": "router",
    "ClawError": "errors",
    "Command": "model",
    "Deadlines": "session",
    "Description": "model",
    "Exit": "model",
    "Extent": "isolation",
    "IO": "model",
    "Instance": "model",
    "Isolation": "isolation",
    "Mount": "model",
    "Observer": "hookspecs",
    "Refusal": "model",
    "Resources": "model",
    "Result": "router",
    "Router": "router",
    "Runtime": "hookspecs",
    "Session": "session",
    "Spec": "model",
    "hookimpl": "hookspecs",
    "run": "blocking",
}

__all__ = [
    "IO",
    "Assessment",
    "Axes",
    "Capture",
    "ClawError",
    "Command",
    "Deadlines",
    "Description",
    "Exit",
    "Extent",
    "Instance",
    "Isolation",
    "Mount",
    "Observer",
    "Refusal",
    "Resources",
    "Result",
    "Router",
    "Runtime",
    "Session",
    "Spec",
    "__version__",
    "hookimpl",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
