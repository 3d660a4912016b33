"""What tests of the guarantee, and of runtimes, are made of; nothing of a run imports it.

Names are imported when they are first used: only the kit needs pytest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from claw_core.testing.contract.suite import RuntimeContract

_HOMES: Final[dict[str, str]] = {"RuntimeContract": "contract.suite"}

__all__ = ["RuntimeContract"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
