"""The commands `stop`, `kill` and `delete`."""

from __future__ import annotations

from simulators.container import xpc
from simulators.container.chance import shuffled
from simulators.container.errors import Failure
from simulators.container.signals import number_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simulators.container.call import Call


def stop(call: Call, values: dict[str, Any], words: list[str]) -> None:
    """`stop`: a signal, and after some seconds the end."""
    number = number_of(values["signal"]) if values["signal"] else None
    seconds = 5 if values["time"] is None else values["time"]
    _each(call, "stop", values, words, number, seconds)


def kill(call: Call, values: dict[str, Any], words: list[str]) -> None:
    """`kill`: a signal to the init process."""
    number = number_of(values["signal"] or "KILL")
    names = _names(call, "kill", values, words)
    _do(call, "kill", [(name, ("signal_process", name, name, number)) for name in names])


def delete(call: Call, values: dict[str, Any], words: list[str]) -> None:
    """`delete`: by force what runs, too."""
    _each(call, "delete", values, words, values["force"])


def _each(call: Call, verb: str, values: dict[str, Any], words: list[str], *arguments: Any) -> None:
    names = _names(call, verb, values, words)
    _do(call, verb, [(name, (verb, name, *arguments)) for name in names])


def _names(call: Call, verb: str, values: dict[str, Any], words: list[str]) -> list[str]:
    if not words and not values["all"]:
        raise Failure("invalidArgument", "no containers specified and --all not supplied")
    if words and values["all"]:
        text = "explicitly supplied container IDs conflict with the --all flag"
        raise Failure("invalidArgument", text)
    if values["all"]:
        call.mac.violated(f"{verb} --all")
        running = [one for one in xpc.ask(call, "containers") if one["state"] == "running"]
        words = [one["configuration"]["id"] for one in running]
    return shuffled(set(words))


def _do(call: Call, verb: str, requests: list[tuple[str, tuple[Any, ...]]]) -> None:
    """Make a request for each container, and report all that fail at the end."""
    failed = []
    for name, (request, *arguments) in requests:
        call.container = name
        try:
            xpc.ask(call, request, *arguments)
        except Failure as error:
            text = f"failed to {verb} container"
            failed.append(Failure("internalError", text, error, coded=True))
        else:
            print(name)
    if failed:
        raise Failure("internalError", "\n".join(str(one) for one in failed))
