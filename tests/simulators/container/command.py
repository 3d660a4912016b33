"""The command itself: find what is to be done, do it, and end as the real one would."""

from __future__ import annotations

import importlib
import os
import signal
import sys

from simulators.container import syntax
from simulators.container.call import Call
from simulators.container.errors import (
    HINT,
    INTERRUPTED,
    INVALID,
    Exit,
    Failure,
    UsageError,
    unsupported,
)
from simulators.container.mac import Mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

COMMANDS = {
    "run": "lifecycle:run",
    "create": "lifecycle:create",
    "start": "lifecycle:start",
    "exec": "lifecycle:execute",
    "stop": "ending:stop",
    "kill": "ending:kill",
    "delete": "ending:delete",
    "ls": "showing:ls",
    "inspect": "showing:inspect",
    "logs": "showing:logs",
    "cp": "files:cp",
    "export": "files:export",
    "image inspect": "imaging:inspect",
    "image ls": "imaging:ls",
    "image pull": "imaging:pull",
    "image delete": "imaging:delete",
    "image tag": "imaging:tag",
    "image load": "imaging:load",
    "image save": "imaging:save",
    "network inspect": "networks:inspect",
    "network ls": "networks:ls",
    "system status": "system:status",
    "system version": "system:system_version",
    "system start": "system:system_start",
    "system stop": "system:system_stop",
}
_SAME = {"rm": "delete", "list": "ls", "copy": "cp", "i": "image", "s": "system", "n": "network"}
_GROUPS = {"image", "system", "network"}
_LEFT_OUT = {"build", "builder", "machine", "registry", "stats", "volume", "prune", "k8s", "clean"}


def main(root: str, argv: list[str]) -> None:
    """Be `container` in a world."""
    call = Call(Mac(root), argv)

    def interrupted(number: int, _: object) -> None:
        call.end(128 + number)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    call.begin()
    code = _code(call)
    call.end(code)
    os._exit(code)


def _code(call: Call) -> int:
    """Run a call, say what went wrong, and return its code."""
    try:
        code = _run(call)
        sys.stdout.flush()
        call.point("end")
    except Exit as end:
        return end.code
    except UsageError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 64
    except Failure as error:
        text = str(error) if call.mac.version >= (0, 10) else error.full()
        hint = f"\n{HINT}" if INVALID in text or INTERRUPTED in text else ""
        sys.stdout.flush()
        sys.stderr.write(f"Error: {text}{hint}\n")
        return 1
    except BrokenPipeError:
        return 1
    return code


def _run(call: Call) -> int:
    """Run a call; the code is that of the guest's program, if it is not 0."""
    call.point("begin")
    argv = call.argv[1:] if call.argv[:1] == ["--debug"] else call.argv
    if argv[:1] == ["--version"]:
        from simulators.container import system

        print(system.version(call.mac))
        return 0
    words, rest = _words(argv)
    name = " ".join(words)
    if name not in COMMANDS or (name == "cp" and call.mac.version < (1, 0)):
        _unknown(call, words, argv)
    values, positional = syntax.of(call.mac, name).parse(rest)
    if values.get("tty"):
        raise unsupported("terminals")
    module, _, function = COMMANDS[name].partition(":")
    place = importlib.import_module(f"simulators.container.{module}")
    handler: Callable[[Call, dict[str, Any], list[str]], None] = getattr(place, function)
    try:
        handler(call, values, positional)
    except Exit as end:
        return end.code
    return 0


def _words(argv: list[str]) -> tuple[list[str], list[str]]:
    """Split the words of the command from its arguments."""
    words = [_SAME.get(word, word) for word in argv[:2]]
    count = 2 if words[:1] and words[0] in _GROUPS else 1
    return words[:count], argv[count:]


def _unknown(call: Call, words: list[str], argv: list[str]) -> NoReturn:
    if "prune" in words:
        call.mac.violated(" ".join(words))
    if words and (words[0] in _LEFT_OUT or words[0] in _GROUPS):
        raise unsupported(" ".join(argv[:2]))
    if not words or words[0].startswith("-"):
        text = f"Unknown option '{words[0] if words else ''}'"
        raise UsageError(f"{text}\nUsage: container <subcommand>")
    raise Failure("notFound", f"failed to find plugin named container-{words[0]}")
