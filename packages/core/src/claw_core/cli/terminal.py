"""The terminal of the user, lent to a command: raw meanwhile, and restored whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import termios
import tty
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from claw_core.cli.signals import undone
from claw_core.errors import ConfigError
from claw_core.model import Control, Exit, Resize

if TYPE_CHECKING:
    from claw_core.cli.progress import ProgressLine
    from claw_core.session import Session

SHELL = ("sh", "-c", "command -v bash > /dev/null && exec bash; exec sh")
"""The best shell that there is in an instance, with the instance's own PATH."""


def require(*, json: bool = False) -> None:
    """Refuse what cannot go together with a terminal.

    Raises:
        ConfigError: standard input is no terminal, or JSON is asked for.
    """
    if json:
        raise ConfigError(
            "a terminal and a JSON document cannot both be standard output",
            remedy="leave `-t` or `--json` out",
        )
    if not os.isatty(0):
        raise ConfigError(
            "standard input is not a terminal",
            remedy="run claw from a terminal, or leave `-t` out",
        )


@contextlib.contextmanager
def lent() -> Iterator[tuple[Resize, AsyncIterator[Control]]]:
    """Let every key reach the command, and give the size of the terminal and each later one."""
    changed, loop = asyncio.Event(), asyncio.get_running_loop()
    before = termios.tcgetattr(0)

    def restore() -> None:
        with contextlib.suppress(termios.error):  # the terminal itself is gone
            termios.tcsetattr(0, termios.TCSANOW, before)

    with undone(restore):
        loop.add_signal_handler(signal.SIGWINCH, changed.set)
        try:
            tty.setraw(0, termios.TCSANOW)
            yield _size(), _sizes(changed)
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)


def environment(chosen: Mapping[str, str]) -> dict[str, str]:
    """What a command must know of this terminal, unless the user has chosen something else."""
    return {name: os.environ[name] for name in ("TERM",) if name in os.environ} | dict(chosen)


async def run(
    session: Session, progress: ProgressLine, command: tuple[str, ...], **how: Any
) -> Exit:
    """Run a command of a session in the user's terminal; see `Session.run`."""
    with progress.silence(), lent() as (size, control):
        return await session.run(
            command,
            env=environment(session.spec.env),
            control=control,
            terminal=size,
            **how,
        )


def _size() -> Resize:
    columns, rows = os.get_terminal_size(0)
    return Resize(rows, columns)


async def _sizes(changed: asyncio.Event) -> AsyncIterator[Control]:
    while True:
        await changed.wait()
        changed.clear()
        yield _size()
