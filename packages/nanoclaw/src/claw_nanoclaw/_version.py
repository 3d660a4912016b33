"""The one place that holds the version of claw-nanoclaw."""

__version__ = "0.1.0"
