"""A NanoClaw installation: what it says of its groups, and its groups on the runtimes of claw."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from claw_core.config.config import Config
from claw_core.errors import ConfigError
from claw_nanoclaw.database import Registered, registered
from claw_nanoclaw.running import Run

if TYPE_CHECKING:
    from claw_nanoclaw.protocol import ContainerInput, ContainerOutput


class NanoClaw:
    """An installation, which is read and never changed.

    Args:
        root: its directory, with `groups/` and `.env`, and the database where it has one.
        config: what is configured, loaded for this root; None loads the user's own.

    Raises:
        ConfigError: this is no installation.
    """

    def __init__(self, root: Path, config: Config | None = None) -> None:
        self.root = root.resolve()
        if not (self.root / "groups").is_dir():
            raise ConfigError(
                f"{self.root} is no NanoClaw installation: it has no directory groups",
                remedy="name the directory into which NanoClaw was cloned",
            )
        self.config = config or Config.load(root=self.root)

    def groups(self) -> Mapping[str, Registered]:
        """Read the groups of the database, by the names of their folders.

        Blocks while it reads. Without a database there are none, and every folder is a group.

        Raises:
            ConfigError: the database cannot be read, or is of a version that claw does not know.
        """
        return registered(self.root)

    def run_group(
        self, folder: str, given: ContainerInput, **options: Any
    ) -> AsyncGenerator[ContainerOutput, None]:
        """Return a generator that runs a group's agent, and yields what it gives as it comes.

        It runs in an instance of its own, which is gone when the generator ends. Whoever stops
        before that closes it: see `contextlib.aclosing`.

        Args:
            folder: the name of the group's folder.
            given: what the agent is to do.
            **options: everything that `Run` has as an attribute, and what `Router.session` takes.

        Raises:
            ConfigError: the group, the input or the installation cannot be followed; nothing was
                started.
            ClawError: claw or the runtime failed; what the agent itself fails at is an output.
        """
        return Run.of(self, folder, given, options).outputs()
