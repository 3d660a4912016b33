"""`claw image`: make the images that instances start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import click

from claw_core.cli.configuration import configured, load
from claw_core.cli.progress import ProgressLine
from claw_core.cli.render import Parsed, document
from claw_core.cli.signals import end_with
from claw_core.errors import ConfigError


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ConfigError(f"expected NAME=VALUE, got {text!r}", remedy="an empty VALUE is fine")
    return name, value


@click.group("image")
def command() -> None:
    """Make the images that instances of a runtime start from."""


@command.command("prepare", short_help="Make an image by a recipe.")
@click.argument("runtime")
@click.argument("recipe", required=False, type=click.Path(path_type=Path))
@click.option("--name", "image", metavar="IMAGE", help="Name of the image; else the recipe's.")
@click.option("--base", metavar="IMAGE", help="What it starts from; else the recipe's.")
@click.option(
    "--set",
    "variables",
    multiple=True,
    metavar="NAME=VALUE",
    type=Parsed("variable", _assignment),
    help="Replace a variable of the recipe: a version, a mirror.",
)
@click.option(
    "--files",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Directory of packages that the steps see: for a machine without a network.",
)
@click.option("--network", type=click.Choice(["none", "default"]), help="Of the steps.")
@configured
@click.option("--json", is_flag=True, help="Write one JSON document about the image.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Say every phase and its duration.")
def prepare(**options: Any) -> None:
    """Make an image of RUNTIME by RECIPE, a TOML file; else by the one that the runtime ships.

    It is made in an instance of its own, looked at in another, and exists whole or not at all.
    """
    end_with(_prepare(**options))


async def _prepare(
    runtime: str,
    recipe: Path | None,
    variables: tuple[tuple[str, str], ...],
    config: Path | None,
    root: Path | None,
    json: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> int:
    from claw_core.config.recipe import Recipe
    from claw_core.recipe import prepare_image
    from claw_core.registry import Registry

    recipe = recipe or Registry().recipe(runtime)
    if recipe is None:
        raise ConfigError(f"{runtime} ships no recipe", remedy="name one of your own")
    progress = ProgressLine(quiet=quiet, verbose=verbose)
    try:
        made = await prepare_image(
            runtime,
            Recipe.load(recipe),
            config=load(config, root, for_groups=False),
            variables=dict(variables),
            listener=progress,
            **options,
        )
    finally:
        progress.close()
    if json:
        document({**attrs.asdict(made), "log": str(made.log)})
    elif not quiet:
        click.echo(made.image)
    return 0
