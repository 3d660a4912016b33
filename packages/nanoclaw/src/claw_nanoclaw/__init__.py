"""NanoClaw on claw: an installation of it, read-only, and its groups on the runtimes of claw.

Names are imported when they are first used: a plugin of this package is imported with every run.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `claw_core`
if TYPE_CHECKING:
    from typing import Any, Final

    from claw_nanoclaw.installation import NanoClaw
    from claw_nanoclaw.protocol import ContainerInput, ContainerOutput

_HOMES: Final[dict[str, str]] = {
    "ContainerInput": "protocol",
    "ContainerOutput": "protocol",
    "NanoClaw": "installation",
}

__all__ = ["ContainerInput", "ContainerOutput", "NanoClaw"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
