"""The options that say where the configuration is; every command that reads it has them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from claw_core.config.config import Config
from claw_core.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])


config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The claw.toml to use; else $CLAW_CONFIG, else the one in your configuration.",
)
"""Adds `--config` alone."""


def configured(function: F) -> F:
    """Add `--config` and `--root` to a command."""
    for decorate in (
        click.option(
            "--root",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Directory of groups/ and .env; else $CLAW_ROOT, for groups the working one.",
        ),
        config_option,
    ):
        function = decorate(function)
    return function


def load(config: Path | None, root: Path | None, *, for_groups: bool = True) -> Config:
    """Read what is configured; what is wrong with it is said when something is to run.

    Args:
        config: what `--config` says.
        root: what `--root` says.
        for_groups: whether groups are wanted, so that they are in the working directory where
            nobody says otherwise.

    Raises:
        ConfigError: the working directory is gone.
    """
    if root is None and for_groups and not os.environ.get("CLAW_ROOT"):
        try:
            root = Path.cwd()
        except FileNotFoundError:
            raise ConfigError(
                "the working directory does not exist any more", remedy="go to another one"
            ) from None
    return Config.load(path=config, root=root)
