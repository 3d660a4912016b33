"""The options that say where the configuration is; every command that reads it has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from claw_core.config.config import Config

F = TypeVar("F", bound=Callable[..., Any])


def configured(function: F) -> F:
    """Add `--config` and `--root` to a command."""
    for decorate in (
        click.option(
            "--root",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Directory of groups/ and .env; else $CLAW_ROOT, else the working directory.",
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="The claw.toml to use; else $CLAW_CONFIG, else the one in your configuration.",
        ),
    ):
        function = decorate(function)
    return function


def load(config: Path | None, root: Path | None) -> Config:
    """Read what is configured; what is wrong with it is said when something is to run."""
    return Config.load(path=config, root=root)
