"""What the executables of `executable.py` become for NanoClaw's containers: a small `docker`.

python -P -m claw_nanoclaw.shim TOOL REAL ROOT CONFIG WORD...
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from claw_core.cli.render import say
from claw_core.errors import ClawError
from claw_nanoclaw.shim import front

FAILED = {"run": 125, "create": 125}
"""Exit code of `docker` itself when it fails; 1 for all other commands."""

NOT_FOUND = 127


def main(tool: str, real: str, root: str, config: str, *words: str) -> int:
    """Answer one command line, and return the exit code.

    Args:
        tool: `docker`, or `container` of Apple.
        real: the command that would have answered without claw; empty where there is none.
        root: the directory of the NanoClaw installation.
        config: the `claw.toml` that decides; empty is the user's own.
        words: the command line.
    """
    verb, rest = words[0] if words else "", words[1:]
    try:
        if front.ours(tool, list(words)):
            return _answer(tool, real, root, config, verb, rest)
    except ClawError as error:
        say(str(error))
        return FAILED.get(verb, 1)
    if verb == "info" or (tool == "container" and verb == "system"):
        # NanoClaw asks whether there is anything that runs containers: for its groups, claw does.
        print("claw")  # noqa: T201 - this is a command
        return 0
    say(f"there is no {tool} on the PATH but this shim, which answers for NanoClaw's containers")
    return NOT_FOUND


def _answer(tool: str, real: str, root: str, config: str, verb: str, rest: Sequence[str]) -> int:
    """Answer for a container of NanoClaw; each verb imports what it needs."""
    if verb == "run":
        _run(tool, root, config, rest)
    if verb in {"stop", "kill", "rm"}:
        from claw_nanoclaw.shim import ending

        return ending.end(verb, rest, root)
    if verb in {"ps", "inspect", "ls", "list"}:
        from claw_nanoclaw.shim import answers

        if verb in {"ls", "list"}:
            return answers.apple_list(rest, real, root)
        if verb == "ps":
            return answers.ps(rest, root)
        if real and not answers.knows(rest, root):
            os.execv(real, [real, verb, *rest])  # an image may be named like a container
        return answers.inspect(rest, root)
    if verb == "exec":
        _execute(rest, root)
    raise ClawError(
        f"{tool} {verb} of a container of NanoClaw is not supported",
        cleaned="nothing was touched",
        remedy="from NanoClaw 2.1 on, use its session driver instead of the shim",
    )


def _run(tool: str, root: str, config: str, rest: Sequence[str]) -> NoReturn:
    from claw_core.cli.signals import end_with
    from claw_nanoclaw.shim import arguments, running

    asked = arguments.run(rest)
    end_with(running.run(asked, tool, Path(root), Path(config) if config else None))


def _execute(rest: Sequence[str], root: str) -> NoReturn:
    """Become `claw exec` for the instance of a container."""
    from claw_core.ledger import Ledger
    from claw_core.statedir import default_state_directory
    from claw_nanoclaw.shim import answers, arguments
    from claw_nanoclaw.shim.records import Records, instances

    given, words = arguments.options(
        "exec",
        rest,
        {"-i": "--interactive", "-t": "--tty", "-e": "--env", "-w": "--workdir"},
        frozenset({"--interactive", "--tty"}),
        frozenset({"--env", "--workdir"}),
    )
    records = Records()
    record = records.find(words[0]) if words else None
    if record is None or record.root != root or not records.alive(record):
        raise answers.absent(words[0] if words else "")
    found = instances(record, Ledger.open(default_state_directory()))
    if not found or found[0].name is None:
        raise ClawError(f"{record.name} is not running yet", remedy="try again in a moment")
    chosen = ["--tty"] if "--tty" in given else []
    for name in ("--env", "--workdir"):
        chosen += [word for value in given.get(name, ()) for word in (name, value)]
    argv = [sys.executable, "-P", "-m", "claw_core", "exec", *chosen, found[0].name, *words[1:]]
    os.execv(sys.executable, argv)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
