"""`claw run --stdio`: NanoClaw's container protocol, so that a host can start claw in its place.

Imported with every run, because it is a plugin: what is heavy is imported when it is used.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from claw_core.agents import Agent
    from claw_core.config.config import Config
    from claw_core.events import Listener
    from claw_core.model import Sink
    from claw_nanoclaw.protocol import ContainerInput


async def serve(
    stdin: AsyncIterator[bytes],
    stdout: Sink,
    stderr: Sink,
    *,
    config: Config,
    listener: Listener,
    group: str | None = None,
    agent: Agent | None = None,
    arguments: Sequence[str] = (),
    timeout: float | None = None,
    idle_timeout: float | None = None,
    **asked: Any,
) -> int:
    """Answer one ContainerInput and its follow-ups, and return the exit code.

    Args:
        stdin: the input, until its end.
        stdout: gets every output, between NanoClaw's markers.
        stderr: gets what the agent writes for people.
        config: what is configured; its root is the installation.
        listener: gets every event.
        group: the group that it must be for; None is the one that the input names.
        agent: whom to ask; None is whom the installation or the configuration names.
        arguments: further arguments for the agent.
        timeout: seconds without output after which it is ended; None is NanoClaw's rule.
        idle_timeout: seconds in which the agent itself may be silent.
        **asked: what `Router.session` takes.

    Raises:
        ClawError: claw or the runtime failed; the host was told.
    """
    from claw_core.errors import ClawError, ConfigError
    from claw_nanoclaw.installation import NanoClaw
    from claw_nanoclaw.protocol import ContainerOutput

    status = "success"
    try:
        given = await _read(stdin)
        folder = given.group_folder or group
        if folder is None or group not in (None, folder):
            raise ConfigError(
                f"the input is for the group {given.group_folder!r}, not for {group!r}",
                remedy="name the group in the input, or leave -g out",
            )
        if config.root is None:
            raise ConfigError("there is no installation", remedy="name its directory with --root")
        outputs = NanoClaw(config.root, config).run_group(
            folder,
            given,
            agent=agent,
            arguments=arguments,
            follow=True,
            timeout=timeout,
            idle_timeout=idle_timeout,
            stderr=stderr,
            listener=listener,
            **asked,
        )
        async with contextlib.aclosing(outputs):
            async for output in outputs:
                status = output.status
                await stdout(output.block())
    except BrokenPipeError:
        return 128 + signal.SIGPIPE  # the host is gone
    except (ClawError, ExceptionGroup) as error:
        # The host reads outputs; whoever called this says it to people, and knows the exit code.
        await stdout(ContainerOutput("error", error=str(error)).block())
        raise
    return 0 if status == "success" else 1


async def _read(stdin: AsyncIterator[bytes]) -> ContainerInput:
    from claw_core.errors import ConfigError
    from claw_nanoclaw.protocol import INPUT_LIMIT, ContainerInput

    data = bytearray()
    async for chunk in stdin:
        data += chunk
        if len(data) > INPUT_LIMIT:
            raise ConfigError(
                f"the ContainerInput has more than {INPUT_LIMIT} bytes",
                remedy="give long texts as files in the group's folder",
            )
    return ContainerInput.from_json(bytes(data))
