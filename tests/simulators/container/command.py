"""The command itself: find what is to be done, do it, and end as the real one would."""

from __future__ import annotations

import importlib
import os
import signal
import sys

from simulators.container import syntax
from simulators.container.call import Call
from simulators.container.configuration import unsupported
from simulators.container.errors import HINT, INTERRUPTED, INVALID, Exit, Failure, UsageError
from simulators.container.mac import Mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

COMMANDS = {
    "run": "lifecycle:run",
    "create": "lifecycle:create",
    "start": "lifecycle:start",
    "exec": "lifecycle:execute",
    "stop": "lifecycle:stop",
    "kill": "lifecycle:kill",
    "delete": "lifecycle:delete",
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
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os._exit(128 + number))
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    call = Call(Mac(root), argv)
    call.begin()
    try:
        code = _run(call)
        sys.stdout.flush()
    except BrokenPipeError:
        code = 1
    call.end(code)
    os._exit(code)


def _run(call: Call) -> int:
    """Run a call, and return its code."""
    try:
        call.point("begin")
        _dispatch(call)
        sys.stdout.flush()
        call.point("end")
    except Exit as end:
        try:
            call.point("end")
        except Exit as fault:
            return fault.code
        except Failure as error:
            return _failed(error)
        return end.code
    except UsageError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 64
    except Failure as error:
        return _failed(error)
    return 0


def _failed(error: Failure) -> int:
    text = str(error)
    hint = f"\n{HINT}" if INVALID in text or INTERRUPTED in text else ""
    sys.stdout.flush()
    sys.stderr.write(f"Error: {text}{hint}\n")
    sys.stderr.flush()
    return 1


def _dispatch(call: Call) -> None:
    argv = (
        [word for word in call.argv if word != "--debug"]
        if call.argv[:1] == ["--debug"]
        else call.argv
    )
    if argv[:1] == ["--version"]:
        from simulators.container import system

        print(system.version(call.mac))
        return
    words, rest = _words(argv)
    name = " ".join(words)
    if name not in COMMANDS or (name == "cp" and call.mac.version < (1, 0)):
        _unknown(call, words, argv)
    values, positional = syntax.of(call.mac, name).parse(rest)
    if values.get("tty"):
        raise unsupported("terminals")
    module, _, function = COMMANDS[name].partition(":")
    handler: Callable[[Call, dict[str, Any], list[str]], None] = getattr(
        importlib.import_module(f"simulators.container.{module}"), function
    )
    handler(call, values, positional)


def _words(argv: list[str]) -> tuple[list[str], list[str]]:
    """Split the words of the command from its arguments."""
    count = 2 if _SAME.get(argv[0] if argv else "", argv[0] if argv else "") in _GROUPS else 1
    return [_SAME.get(word, word) for word in argv[:count]], argv[count:]


def _unknown(call: Call, words: list[str], argv: list[str]) -> None:
    if "prune" in words:
        call.mac.violated(" ".join(words))
    if words[:1] and (words[0] in _LEFT_OUT or words[0] in _GROUPS) and len(words) > 0:
        raise unsupported(" ".join(argv[:2]))
    if not words or words[0].startswith("-"):
        raise UsageError(
            f"Unknown option '{words[0] if words else ''}'\nUsage: container <subcommand>"
        )
    raise Failure("notFound", f"failed to find plugin named container-{words[0]}")
