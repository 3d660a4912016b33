"""The one place that holds the version of claw-runtime-docker."""

__version__ = "0.1.0"
