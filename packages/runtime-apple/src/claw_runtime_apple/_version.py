"""The one place that holds the version of claw-runtime-apple."""

__version__ = "0.1.0"
