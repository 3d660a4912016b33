"""claw: run agents in isolated, disposable runtimes and leave nothing of them behind.

Names are imported when they are first used, so that `import claw_core` costs next to nothing.
"""

from __future__ import annotations

from claw_core._version import __version__

TYPE_CHECKING = False  # `typing` itself would cost as much as everything else together
if TYPE_CHECKING:
    from typing import Any, Final

    from claw_core.agents import Agent
    from claw_core.blocking import run
    from claw_core.capture import Capture
    from claw_core.config.config import Config
    from claw_core.config.settings import Settings
    from claw_core.conversation import Answer, Conversation
    from claw_core.errors import ClawError
    from claw_core.hookspecs import Observer, Runtime, hookimpl
    from claw_core.isolation import Axes, Extent, Isolation
    from claw_core.keeping import Keeping
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
    from claw_core.router import Result, Router
    from claw_core.routing import Route
    from claw_core.session import Deadlines, Session

_HOMES: Final[dict[str, str]] = {
    "Agent": "agents",
    "Answer": "conversation",
    "Assessment": "model",
    "Axes": "isolation",
    "Capture": "capture",
    "ClawError": "errors",
    "Command": "model",
    "Config": "config.config",
    "Conversation": "conversation",
    "Deadlines": "session",
    "Description": "model",
    "Exit": "model",
    "Extent": "isolation",
    "IO": "model",
    "Instance": "model",
    "Isolation": "isolation",
    "Keeping": "keeping",
    "Mount": "model",
    "Observer": "hookspecs",
    "Refusal": "model",
    "Resources": "model",
    "Result": "router",
    "Route": "routing",
    "Router": "router",
    "Runtime": "hookspecs",
    "Session": "session",
    "Settings": "config.settings",
    "Spec": "model",
    "hookimpl": "hookspecs",
    "run": "blocking",
}

__all__ = [
    "IO",
    "Agent",
    "Answer",
    "Assessment",
    "Axes",
    "Capture",
    "ClawError",
    "Command",
    "Config",
    "Conversation",
    "Deadlines",
    "Description",
    "Exit",
    "Extent",
    "Instance",
    "Isolation",
    "Keeping",
    "Mount",
    "Observer",
    "Refusal",
    "Resources",
    "Result",
    "Route",
    "Router",
    "Runtime",
    "Session",
    "Settings",
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
