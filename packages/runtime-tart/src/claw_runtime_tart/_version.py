"""The one place that holds the version of claw-runtime-tart."""

__version__ = "0.1.0"
