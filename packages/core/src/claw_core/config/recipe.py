"""What a base image is made of: a file that people write once and every runtime can follow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from claw_core.config import sources
from claw_core.config.settings import Duration, Script, Variables
from claw_core.errors import ConfigProblems
from claw_core.model import Network


@attrs.frozen(kw_only=True)
class Step:
    """One thing that is done, or looked at.

    Attributes:
        name: what a reader is told.
        run: program for the instance's `sh`, which ends at the first command that fails.
        timeout: seconds until it has failed.
    """

    name: str
    run: Script
    timeout: Duration = Duration(1800.0)


@attrs.frozen(kw_only=True)
class File:
    """A file or directory that is copied in.

    Attributes:
        source: path on the host; a relative one begins where the recipe is.
        target: absolute path inside.
    """

    source: str
    target: str


@attrs.frozen(kw_only=True)
class Recipe:
    """How an image is made.

    Attributes:
        image: the name that it gets.
        base: runtime -> what it starts from there.
        variables: environment of every step: pinned versions, addresses of mirrors.
        files: copied in before the first step.
        steps: done in this order.
        verify: done after the steps, and again in an instance of the finished image, as ordinary
            runs are; each must end with 0.
        network: of the steps; the finished image is looked at without one where that can be.
        runtimes: the runtimes' own settings while the steps are done, over the configured ones.
    """

    image: str
    base: Mapping[str, str]
    variables: Variables = attrs.field(factory=lambda: Variables({}))
    files: tuple[File, ...] = ()
    steps: tuple[Step, ...] = ()
    verify: tuple[Step, ...] = ()
    network: Network = "default"
    runtimes: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a recipe.

        Raises:
            ConfigProblems: all that is wrong with it, or it is not there.
        """
        try:
            recipe = sources.document(path, lambda: cls)
        except sources.Problems as error:
            raise ConfigProblems.of(error.problems) from None
        if recipe is None:
            raise ConfigProblems.of([f"{path}: there is no such file"])
        files = (attrs.evolve(one, source=str(path.parent / one.source)) for one in recipe.files)
        return attrs.evolve(recipe, files=tuple(files))
