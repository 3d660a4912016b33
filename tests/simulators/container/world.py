"""A simulated Mac for tests: `container` and `launchctl` on the PATH, and the truth about them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from simulators.container import events, images, observed, removal, strangers
from simulators.container.busybox import make_root, missing
from simulators.container.mac import KNOBS, Mac
from simulators.container.observed import Container, Fault, Recorded

Completed = subprocess.CompletedProcess[bytes]
IMAGE = "claw-test:1"
_LAUNCHER = """\
#!{python} -IS
import sys
sys.path.insert(0, {tests!r})
from simulators.container.{module} import main
main({root!r}, sys.argv[1:])
"""


class Started(subprocess.Popen[bytes]):
    """A process that is running; a test that fails does not wait for its end."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if value is not None:
            self.kill()
        super().__exit__(kind, value, traceback)


class World:
    """A Mac of one's own, which ends with all its processes when it is left.

    Where no guests can be made, the test is skipped. Leaving it without an error sees to it that
    nobody touched what is not claw's.

    Args:
        directory: where it is; made if missing.
        knobs: as the README has them, such as `version="1.0.0"`.
    """

    def __init__(self, directory: Path, **knobs: Any) -> None:
        self.directory = directory.resolve()
        self.bin = self.directory / "bin"
        self.mac = Mac(str(self.directory))
        self._knobs = knobs

    def __enter__(self) -> Self:
        if why := missing():
            pytest.skip(why)
        for name in ("bin", "containers", "launchd", "images", "forgotten"):
            (self.directory / name).mkdir(parents=True)
        os.mkfifo(self.directory / "lifeline")
        self._lifeline = os.open(self.directory / "lifeline", os.O_RDWR)
        modules = {"container": "command", "launchctl": "launchd"}
        for name, module in {**modules, "container-runtime-linux": "helper"}.items():
            text = _LAUNCHER.format(
                python=sys.executable,
                tests=str(Path(__file__).parents[2]),
                module=module,
                root=str(self.directory),
            )
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)
        self.configure(**self._knobs)
        self.image(IMAGE)
        strangers.add(self.mac, images.known(self.mac, IMAGE))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        violations = self.violations()
        self.end()
        if error is None:
            assert not violations, violations

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, with the world's commands on the PATH."""
        return {**os.environ, "PATH": f"{self.bin}:{os.environ.get('PATH', os.defpath)}"}

    def configure(self, **knobs: Any) -> None:
        """Turn knobs; the next call sees them."""
        unknown = set(knobs) - set(KNOBS)
        assert not unknown, f"no such knob: {unknown}"
        with self.mac.changed("config", {}) as config:
            config.update(knobs)

    def image(
        self,
        name: str,
        *,
        files: Mapping[str, bytes] = {},
        registry: bool = False,
        **config: Any,
    ) -> None:
        """Make an image of busybox and some files.

        Args:
            name: its name.
            files: contents by path.
            registry: whether it is only where `image pull` finds it.
            config: more of its configuration, such as `Env`, `User`, `Cmd`, `StopSignal`.
        """
        number = uuid.uuid4().hex
        root = self.directory / "images" / number
        make_root(root)
        for path, data in files.items():
            (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            (root / path.lstrip("/")).write_bytes(data)
        given = {"Cmd": ["sh"], "Env": ["PATH=/usr/bin:/bin"], **config}
        record = images.record(name, str(root), given, number * 2)
        with self.mac.changed("registry" if registry else "images", {}) as known:
            known[record["name"]] = record

    def run(self, *argv: str, stdin: bytes | None = None, timeout: float = 60) -> Completed:
        """Run `container` to its end."""
        return subprocess.run(
            [self.bin / "container", *argv],
            input=b"" if stdin is None else stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *argv: str, **options: Any) -> Started:
        """Start `container` with pipes; to be used with `with`."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return Started([self.bin / "container", *argv], **{**pipes, **options})

    def containers(self) -> dict[str, Container]:
        """The truth about all containers but the strangers'."""
        return observed.containers(self.mac)

    def processes(self) -> dict[int, str]:
        """All that is alive: `cli`, `apiserver`, `helper` or `guest` by pid."""
        return observed.processes(self.mac)

    def journal(self, program: str = "container") -> list[Recorded]:
        """Every call so far, in the order in which they began."""
        return observed.calls(self.mac, program)

    def pulls(self) -> list[str]:
        """Every image that was asked of the registry."""
        lines = observed.lines(self.mac, "journal")
        return [line["pull"] for line in lines if "pull" in line]

    def violations(self) -> list[str]:
        """What was done that no backend may ever do."""
        return [line["what"] for line in observed.lines(self.mac, "violations")]

    def forgive(self) -> None:
        """Forget what was done."""
        (self.directory / "violations.jsonl").unlink(missing_ok=True)

    def holding(self, value: str) -> list[Path]:
        """Files that hold a value that none should, the guests' own included."""
        files = (path for path in self.directory.rglob("*") if path.is_file())
        found = [path for path in files if value.encode() in path.read_bytes()]
        return [path.relative_to(self.directory) for path in found]

    def fault(
        self, verb: str, at: str, action: str, *, call: int = 1, times: int = 1, **options: Any
    ) -> Fault:
        """Let something go wrong.

        Args:
            verb: of which command, such as `delete` or `image inspect`; `*` for any.
            at: where in it; the README has a table.
            action: what; the README has a table.
            call: of which call of the command from now on, counted from 1.
            times: in how many calls from that one on.
            options: what the action needs; `container` limits it to calls that name it.
        """
        number = uuid.uuid4().hex[:8]
        value = {"id": number, "verb": verb, "at": at, "action": action, "call": call}
        with self.mac.changed("faults", []) as faults:
            faults.append({**value, "times": times, **options})
        return Fault(self.mac, number)

    def crash(self) -> None:
        """Kill the server: what runs, runs on, and it does not know."""
        events.crash(self.mac)

    def reboot(self) -> None:
        """Cut the power."""
        events.reboot(self.mac)

    def kill_helper(self, name: str) -> None:
        """Kill the helper of a container."""
        events.kill_helper(self.mac, name)

    def freeze(self, name: str) -> None:
        """Freeze the guest of a container for good."""
        events.freeze(self.mac, name)

    def forget(self, name: str) -> None:
        """Let the server forget a container, whose helper lives on."""
        events.forget(self.mac, name)

    def end(self) -> None:
        """End every process, and remove everything."""
        shutil.rmtree(self.bin)
        os.close(self._lifeline)
        deadline = time.monotonic() + 30
        while found := self.processes():
            for pid in found:
                events.kill(pid)
            assert time.monotonic() < deadline, found
        for part in ("containers", "forgotten"):
            for bundle in (self.directory / part).iterdir():
                removal.remove(str(bundle))
        shutil.rmtree(self.directory, ignore_errors=True)
