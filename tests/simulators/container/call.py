"""One call of the command: its arguments, its place in the journal, and the faults that hit it."""

from __future__ import annotations

import os
import select
import signal
import time

from simulators.container.errors import INTERRUPTED, Exit, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simulators.container.mac import Mac


class Call:
    """A call as it is running.

    Args:
        mac: the machine.
        argv: the arguments, without the command's own name.
    """

    def __init__(self, mac: Mac, argv: list[str]) -> None:
        self.mac, self.argv = mac, argv
        self.verb = verb(argv)
        self.number = f"{os.getpid()}-{time.monotonic_ns()}"
        self.container: str | None = None
        self._faults = _drawn(mac, self.verb, argv)

    def begin(self) -> None:
        """Write it down."""
        self.mac.note(
            {
                "call": self.number,
                "pid": os.getpid(),
                "program": "container",
                "argv": self.argv,
                "env": sorted(os.environ),
            }
        )

    def end(self, code: int) -> None:
        """Write its end down."""
        self.mac.note({"call": self.number, "exit": code})

    def faults(self, point: str) -> list[dict[str, Any]]:
        """The faults of a point."""
        return [fault for fault in self._faults if fault["at"] == point]

    def point(self, name: str) -> str | None:
        """Come to a point, and suffer what is to happen there.

        Returns:
            `skip` when the step that follows is to be left out.
        """
        answer = None
        for fault in self.faults(name):
            self.mac.note({"call": self.number, "fault": fault["id"], "at": name})
            action = fault["action"]
            if action == "skip":
                answer = "skip"
            else:
                getattr(self, f"_{action}")(fault)
        return answer

    def _kill(self, fault: dict[str, Any]) -> None:
        os.kill(os.getpid(), fault.get("signal", signal.SIGKILL))

    def _hang(self, _: dict[str, Any]) -> None:
        wait_for_the_end(self.mac)

    def _sleep(self, fault: dict[str, Any]) -> None:
        time.sleep(fault["seconds"])

    def _error(self, fault: dict[str, Any]) -> None:
        text = fault.get("text", INTERRUPTED)
        raise Failure(fault.get("code", "internalError"), text, coded=fault.get("coded", False))

    def _exit(self, fault: dict[str, Any]) -> None:
        raise Exit(fault["status"])

    def _say(self, fault: dict[str, Any]) -> None:
        text = fault["text"].encode() * fault.get("repeat", 1)
        with open(fault.get("stream", 2), "wb", closefd=False) as stream:
            stream.write(text)

    def _crash(self, _: dict[str, Any]) -> None:
        from simulators.container import events

        events.crash(self.mac)

    def _helper(self, fault: dict[str, Any]) -> None:
        from simulators.container import events

        events.kill_helper(self.mac, fault.get("container") or self.container or "")

    def _freeze(self, fault: dict[str, Any]) -> None:
        from simulators.container import events

        events.freeze(self.mac, fault.get("container") or self.container or "")

    def _knob(self, fault: dict[str, Any]) -> None:
        with self.mac.changed("config", {}) as config:
            config.update(fault["knobs"])


def verb(argv: list[str]) -> str:
    """What a fault calls a call: `run`, or `image inspect`."""
    words = [word for word in argv if not word.startswith("-")]
    if words[:1] in (["image"], ["system"], ["network"]):
        return " ".join(words[:2])
    names = {"rm": "delete", "list": "ls", "copy": "cp"}
    return names.get(words[0], words[0]) if words else ""


def wait_for_the_end(mac: Mac) -> None:
    """Stand still for as long as the world is there."""
    poll = select.poll()
    poll.register(mac.lifeline(), select.POLLHUP)
    poll.poll()
    os._exit(1)


def _drawn(mac: Mac, verb: str, argv: list[str]) -> list[dict[str, Any]]:
    """Count this call for every fault that waits for such a one; return those that are due."""
    due = []
    with mac.changed("faults", []) as faults:
        for fault in faults:
            wanted = fault.get("container")
            if fault["verb"] not in {verb, "*"} or (wanted is not None and wanted not in argv):
                continue
            fault["seen"] = fault.get("seen", 0) + 1
            if fault["call"] <= fault["seen"] < fault["call"] + fault["times"]:
                due.append(fault)
    return due
