"""`docker run` of NanoClaw: one of its containers as an instance of the runtime of its group."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs

from claw_core.cli.render import failures, say
from claw_core.cli.streams import Reader, Writer
from claw_core.config.config import Config
from claw_core.config.settings import AUTO, Settings, Size, Source, Variables
from claw_core.errors import ClawError, DeadlineExceeded, Refused
from claw_core.events import Event, Notice
from claw_core.known import canonical
from claw_core.model import Mount
from claw_core.router import Router
from claw_nanoclaw.shim import executable, image, layout, support
from claw_nanoclaw.shim.arguments import Run
from claw_nanoclaw.shim.records import Record, Records

ORIGIN: Final = "NanoClaw's command line"
DEFAULTS: Final = {"docker": "docker", "container": "apple"}
"""The runtime of a group for which nothing is configured: the one that NanoClaw means."""
HOME: Final = "/home/node"
"""Where NanoClaw's image has the agent's state; a `docker run` finds it in the image's users."""
NODE: Final = "1000:1000"
"""The user of NanoClaw's image, which root's containers have there as well."""
NOTHING: Final = Path(__file__).with_name("nothing")
"""An empty file."""
BROKEN_PIPE: Final = 141


async def run(asked: Run, tool: str, root: Path, config: Path | None) -> int:
    """Run a container of NanoClaw, and return the exit code of `docker run`.

    Args:
        asked: the command line.
        tool: the command that was called.
        root: the directory of the installation.
        config: the `claw.toml` that decides; None is the user's own.
    """
    try:
        return await _run(asked, tool, root, config)
    except BrokenPipeError:
        return BROKEN_PIPE  # whoever read our output is gone
    except (ClawError, BaseExceptionGroup) as error:
        known = list(failures(error))
        if not known:
            raise
        for failure in known:
            say(str(failure))
        # What `docker` says of its own failures, and what claw says of a deadline.
        return known[0].exit_code if isinstance(known[0], DeadlineExceeded) else ClawError.exit_code


async def _run(asked: Run, tool: str, root: Path, config: Path | None) -> int:
    kind = layout.of(asked)
    group = layout.group_of(asked, root)
    merged = Config.load(path=config, root=root).group(group).merged
    named = canonical(merged.settings.runtime or DEFAULTS[tool])
    record = Record(asked.name, str(root), group, asked.image, asked.labels)
    with Records().held(record) as lock:
        if named != AUTO and support.require(kind, named, group) == "agent":
            _become_agent(lock, asked, group, root, config)
        configured = Config.load(path=config, root=root)
        configured.defaults += (Source(_settings(asked, named), ORIGIN),)
        return await _instance(asked, kind, group, configured)


async def _instance(asked: Run, kind: layout.Layout, group: str, config: Config) -> int:
    """Run the image's program in an instance of its own."""
    async with Router.open(config=config, listener=_notice) as router:
        route = await router.route(group, folder=False)
        if support.require(kind, route.runtime, group) != "image":
            raise Refused(
                f"{route.runtime} would run the agent without NanoClaw's image",
                cleaned="nothing was started",
                remedy=f'set runtime = "{route.runtime}" for {group}, or another fallback',
            )
        image.require_names(asked, route)
        argv, workdir = await image.program(asked, route)
        async with router.session(group=group, folder=False, workdir=workdir) as session:
            ended = await session.run(
                argv,
                stdin=Reader(0).chunks() if asked.interactive else None,
                stdout=Writer(1),
                stderr=Writer(2),
            )
    if ended.reason:
        say(ended.reason)
    return ended.code


def _settings(asked: Run, runtime: str) -> Settings:
    """What NanoClaw asks for, as the weakest source: what its owner has configured decides."""
    own: dict[str, Any] = {}
    if asked.user is not None:
        own["user"] = asked.user
    elif os.getuid() == 0:
        own["user"] = NODE
    docker = {**own, "read_only": False, "hosts": list(asked.hosts)}
    # The first `container` on the path is this shim, which adds NanoClaw's names to listings.
    command = executable.real(os.environ.get("PATH", os.defpath), "container")
    apple = own if command is None else {**own, "command": str(command)}
    return Settings(
        runtime=runtime,
        image=asked.image,
        network=asked.network,
        cpus=asked.resources.cpus,
        memory=None if asked.resources.memory is None else Size(asked.resources.memory),
        processes=asked.resources.processes,
        mounts=tuple(map(_mountable, asked.mounts)),
        env=Variables({"HOME": HOME, **asked.env}),
        runtimes={"docker": docker, "apple": apple},
    )


def _mountable(mount: Mount) -> Mount:
    """The mount, with an empty file where NanoClaw hides one behind `/dev/null`."""
    return attrs.evolve(mount, source=NOTHING) if mount.source == Path(os.devnull) else mount


def _become_agent(lock: int, asked: Run, group: str, root: Path, config: Path | None) -> NoReturn:
    """Become `claw run --stdio` for the group, which goes on holding the record of this process.

    Of NanoClaw's variables only the time zone is passed on: the others lead to a gateway that is
    reached from containers of this machine.
    """
    os.set_inheritable(lock, True)
    words = ["run", "--stdio", "-g", group, "--root", str(root)]
    words += ["--config", str(config)] if config else []
    words += ["-e", f"TZ={asked.env['TZ']}"] if "TZ" in asked.env else []
    os.execv(sys.executable, [sys.executable, "-P", "-m", "claw_core", *words])


def _notice(event: Event) -> None:
    if isinstance(event, Notice):
        say(event.text)
