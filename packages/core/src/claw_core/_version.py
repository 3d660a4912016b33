"""The one place that holds the version of claw-core."""

__version__ = "0.1.0"
