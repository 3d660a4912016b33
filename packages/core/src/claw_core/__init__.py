"""claw: run agents in isolated, disposable runtimes and leave nothing of them behind."""

from claw_core._version import __version__

__all__ = ["__version__"]
