"""What a guest is told to run: programs for its `sh`, delivered on standard input.

Nothing of a command is in the arguments of `ssh` or `tart exec`, which end up in process lists and
logs: not its arguments, not its environment, not a secret. The first line of standard input is the
program, and what follows it is the command's.
"""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import attrs

from claw_core.errors import RuntimeFault
from claw_core.model import IO, Exit, Sink

READER: Final = 'exec /bin/sh -c \'IFS= read -r l && eval "$(printf %b "$l")"\''
"""What is run in the guest, by whatever login shell: it reads its program byte by byte."""
BREW: Final = "/opt/homebrew/bin:/usr/local/bin"
"""Where Homebrew puts commands; no PATH of a shell that is not a login shell has it."""
LONGEST: Final = 65_536
"""Bytes before our line after which it does not come any more."""

_COMMAND: Final = """
claw_say() {{ printf '%s\\n' "{token} $1" >&{channel}; }}
cd {workdir} 2>/dev/null || {{ claw_say workdir; exit 126; }}
set -- {argv}
case $1 in
*/*)
    [ -e "$1" ] || {{ claw_say missing; exit 127; }}
    [ -x "$1" ] && [ ! -d "$1" ] || {{ claw_say denied; exit 126; }} ;;
*)
    command -v -- "$1" >/dev/null || {{ claw_say missing; exit 127; }} ;;
esac
claw_say started
unset -f claw_say
unset OLDPWD
exec "$@"
"""


def line(program: str) -> bytes:
    """A program as the one line that `READER` reads; every byte but NUL comes through."""
    data = program.encode(errors="surrogateescape")
    return data.replace(b"\\", b"\\\\").replace(b"\n", b"\\0012") + b"\n"


def command(
    argv: Sequence[str],
    env: Mapping[str, str],
    workdir: str | None,
    token: str,
    *,
    terminal: bool,
) -> str:
    """The program that becomes a command, after saying a token and how that went.

    Args:
        argv: program and arguments.
        env: environment on top of the login's.
        workdir: directory to start in; None is the home.
        token: what the line begins with; the command does not know it.
        terminal: whether standard output is one, where that line is said then.
    """
    lines = ["unset l"]  # of `READER`, and maybe of the environment
    lines += [] if "PATH" in env else [f'PATH="{BREW}:$HOME/.local/bin:$PATH"']
    lines += [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
    where = '"$HOME"' if workdir is None else shlex.quote(workdir)
    return "\n".join(lines) + _COMMAND.format(
        token=token,
        channel=1 if terminal else 2,
        workdir=where,
        argv=shlex.join(argv),
    )


def quote(text: str) -> str:
    """A text as one word of a program."""
    return shlex.quote(text)


@attrs.define(eq=False)
class Opening:
    """A sink that takes out of a command's output the line that is ours, and comes first.

    What a login shell says before, or a terminal echoes, goes on.

    Attributes:
        said: what that line says; None before it has come.
    """

    token: str
    _sink: Sink
    said: str | None = None
    _held: bytearray | None = attrs.field(factory=bytearray)

    async def __call__(self, data: bytes) -> None:
        """Take a chunk."""
        if self._held is not None:
            self._held += data
            before, mark, after = bytes(self._held).partition(self.token.encode())
            line, newline, rest = after.partition(b"\n")
            if newline:
                self.said = line.decode(errors="replace").strip()
                data = before + rest
            elif mark or len(self._held) < LONGEST:
                return
            else:
                data = before
            self._held = None
        if data:
            await self._sink(data)

    async def end(self) -> None:
        """Let through what has come, when nothing more comes."""
        if self._held:
            await self._sink(bytes(self._held))
            self._held = None


def outcome(ended: Exit, said: str | None, program: str, workdir: str | None) -> Exit:
    """How a command ended, or why it was not started.

    Raises:
        RuntimeFault: the guest cannot run any command, or none there.
    """
    if said == "workdir":
        raise RuntimeFault(
            f"cannot start in {workdir!r}: it is not there, or the guest's user may not enter",
            remedy="name another directory with -w",
        )
    if said == "missing":
        return Exit(127, reason=f"{program}: command not found in the guest")
    if said == "denied":
        return Exit(126, reason=f"{program}: cannot be executed")
    if said != "started":
        raise RuntimeFault(
            f"the guest could not start {program} (code {ended.code})",
            remedy="see what it wrote; the guest's user needs a login shell that works",
        )
    return ended


def preceded(first: bytes, io: IO) -> AsyncIterator[bytes]:
    """Standard input: the program's line, and then the command's own."""

    async def chunks() -> AsyncIterator[bytes]:
        yield first
        if io.stdin is not None:
            async for chunk in io.stdin:
                yield chunk

    return chunks()
