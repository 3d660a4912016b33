"""A world for tests: a host with the simulated `tart`, its machines, and all their processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from simulators.tart import base, host, journal, leases, network
from simulators.tart.agent import DIALECTS
from simulators.tart.errors import Failure
from simulators.tart.faults import known
from simulators.tart.host import HERE, missing
from simulators.tart.library import Library
from simulators.tart.machine import CONTENT, Machine
from simulators.tart.settings import KNOBS

__all__ = ["Simulator", "missing"]


class Simulator:
    """A host of its own, as a context; at its end everything of it ends and goes.

    Attributes:
        home: what `TART_HOME` is.
        bin: the directory with `tart`, to be put in front of `PATH`.
        environment: a whole environment for a subprocess that uses this world.
    """

    def __init__(self, **knobs: Any) -> None:
        # Short, for the path of a socket has at most 103 bytes on a Mac.
        self.directory = Path(tempfile.mkdtemp(prefix="tart-", dir="/var/tmp"))
        self.directory.chmod(0o755)
        self.home, self.host, self.bin = (self.directory / name for name in ("t", "host", "bin"))
        self.config = self.directory / "config.json"
        self.leases = self.host / "dhcpd" / "leases"
        for path in (self.home, self.bin, self.leases.parent):
            path.mkdir(parents=True)
        for name in ("arp", "faults", "guests", "macos", "zombies"):
            (self.host / name).mkdir()
        self._knobs: dict[str, Any] = {}
        self._faults: list[dict[str, Any]] = []
        self._images: dict[str, str] = {}
        self._alive = (self.host / "alive").open("w")
        fcntl.flock(self._alive, fcntl.LOCK_EX)
        self._runs: list[subprocess.Popen[str]] = []
        tart = self.bin / "tart"
        # A reaper has another environment: the executable itself knows its world.
        program = (
            f'export FAKE_TART_CONFIG={self.config}\nexec {sys.executable} -IS {HERE / "tart"} "$@"'
        )
        tart.write_text(f"#!/bin/sh\n{program}\n")
        tart.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "TART_HOME": str(self.home),
            "FAKE_TART_CONFIG": str(self.config),
        }
        self.knobs(**knobs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    # What the world is like.

    def knobs(self, **values: Any) -> None:
        """Set knobs for all later calls; README.md has a table of them."""
        self._knobs |= values
        assert self._knobs.keys() <= KNOBS.keys(), f"no such knob: {values}"
        assert self._knobs.get("agent", DIALECTS[-1]) in DIALECTS, f"no such agent: {values}"
        self._write()

    def fault(
        self,
        verb: str,
        kind: str,
        *,
        vm: str = "*",
        after: int = 0,
        times: int | None = 1,
        **more: Any,
    ) -> None:
        """Have calls of a verb fail; README.md has a table of the kinds.

        Args:
            vm: only calls for machines whose name matches this pattern count.
            after: how many such calls are let through first.
            times: how many are hit then; None for all.
            more: what this kind needs, as `seconds=2`.
        """
        assert known(verb, kind), f"no such fault: {verb} {kind}"
        fault = {"verb": verb, "kind": kind, "vm": vm, "after": after, "times": times, **more}
        self._faults.append({"id": f"{len(self._faults)}", **fault})
        self._write()

    def heal(self) -> None:
        """Forget all faults; what they have done to processes that live stays."""
        for fault in self._faults:
            fault["times"] = 0
        self._write()

    def _write(self) -> None:
        data = {
            "host": str(self.host),
            "leases": str(self.leases),
            "journal": str(self.host / "journal"),
            "knobs": self._knobs,
            "faults": self._faults,
            "images": self._images,
        }
        new = self.config.with_suffix(".new")
        new.write_text(json.dumps(data))
        new.rename(self.config)

    def base(self, name: str = "base", system: str = "darwin", gigabytes: int = 50) -> Path:
        """Make a machine as an installed base image is, and return the root of its disk."""
        machine = Library(str(self.home)).at(name)
        base.install(machine, system, gigabytes)
        return Path(machine.file(CONTENT))

    def image(self, name: str, system: str = "darwin", gigabytes: int = 50) -> Path:
        """Make an image of a registry, for instance `ghcr.io/example/base:latest`."""
        machine = Machine(str(self.host / "images" / secrets.token_hex(4)))
        self._images[name] = machine.path
        base.install(machine, system, gigabytes)
        self._write()
        return Path(machine.file(CONTENT))

    def softnet(self) -> None:
        """Install `softnet`."""
        tool = self.bin / "softnet"
        tool.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {HERE / "softnet"} "$@"\n')
        tool.chmod(0o755)

    # What happens in it.

    def tart(
        self, *argv: str, timeout: float = 30, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Call `tart` and wait for its end."""
        return subprocess.run(
            [self.bin / "tart", *argv],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            **options,
        )

    def run(self, name: str, *options: str) -> subprocess.Popen[str]:
        """Start `tart run` in a session of its own; its output is a pipe."""
        process = subprocess.Popen(
            [self.bin / "tart", "run", name, "--no-graphics", *options],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._runs.append(process)
        return process

    def vms(self) -> set[str]:
        """Every entry of the directory of machines, half of one included."""
        folder = self.home / "vms"
        return set(os.listdir(folder)) if folder.exists() else set()

    def disk(self, name: str) -> Path:
        """The root of what is on a machine's disk; a guest writes there when it syncs."""
        return Path(Library(str(self.home)).at(name).file(CONTENT))

    def running(self) -> dict[str, int]:
        """The machines whose lock is held, and by which process."""
        machines = Library(str(self.home)).machines()
        return {machine.name: pid for machine in machines if (pid := machine.runner())}

    def address(self, name: str, timeout: float = 10) -> str:
        """The address of a machine's newest lease, as soon as its SSH server answers."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, Failure):
                if address := self.lease(name):
                    socket.create_connection((address, self._knobs.get("port", 22)), 1).close()
                    return address
            time.sleep(0.01)
        raise TimeoutError(f"{name} has no SSH server")

    def lease(self, name: str) -> str | None:
        """The address of a machine's newest lease, even if nobody has it any more."""
        mac = Library(str(self.home)).at(name).config()["macAddress"]
        return leases.resolve(str(self.leases), mac)

    def journal(self) -> list[dict[str, Any]]:
        """Every call so far: its beginning, with `exit` and `ended` once it is over."""
        return journal.read(str(self.host / "journal"))

    def calls(self, verb: str) -> list[list[str]]:
        """The arguments of every call of a verb."""
        return [call["argv"][1:] for call in self.journal() if call["argv"][:1] == [verb]]

    def processes(self) -> dict[int, str]:
        """Every process of this world that is alive, guests included, by pid: its command line."""
        return host.processes(str(self.config))

    def power_off(self) -> None:
        """Kill every process of this world at once; the files stay as they are."""
        deadline = time.monotonic() + 10
        while pids := self.processes():
            assert time.monotonic() < deadline, pids
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.01)

    def end(self) -> None:
        self.power_off()
        self._alive.close()
        for process in self._runs:
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            process.wait(10)
        routes = self.host / "routes"
        for address in set(routes.read_text().split()) if routes.exists() else ():
            network.change_route("del", address)
        shutil.rmtree(self.directory)
