"""Runs the real `claw` command, and looks at the real process table."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

CLAW = (sys.executable, "-m", "claw_core")

DAEMONS = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        time.sleep(600)
        os._exit(0)
print("ready", flush=True)
time.sleep(600)
"""
"""A payload of 20 daemons that ignore every polite request, and whose parent does as well."""


def claw(
    *args: str | os.PathLike[str],
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60,
) -> subprocess.CompletedProcess[bytes]:
    """Run `claw` to its end."""
    return subprocess.run(
        [*CLAW, *(os.fspath(arg) for arg in args)],
        input=stdin,
        capture_output=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        timeout=timeout,
        check=False,
    )


def hide(folder: Path, *distributions: str) -> Path:
    """Make a folder that, early on the path, lets distributions look as if not installed."""
    for name in distributions:
        info = folder / f"{name.replace('-', '_')}-0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 0\n")
        (info / "entry_points.txt").write_text("[claw.runtimes]\n[claw.plugins]\n")
    return folder


def hiding(folder: Path, *distributions: str) -> dict[str, str]:
    """The environment of processes for which distributions look as if not installed."""
    path = os.environ.get("PYTHONPATH")
    hidden = str(hide(folder / "hidden", *distributions))
    return {"PYTHONPATH": f"{hidden}{os.pathsep}{path}" if path else hidden}


def start(*args: str, **options: object) -> subprocess.Popen[bytes]:
    """Start `claw` with pipes, in a process group of its own."""
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return] # options vary by test
        [*CLAW, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **options,
    )


def marked(marker: str) -> list[int]:
    """Pids of living processes whose command line contains the marker, other than zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue  # gone meanwhile
    return [pid for pid in found if pid != os.getpid()]


def wardens(state: Path) -> list[int]:
    """Pids of the waiters that look after a state directory."""
    found = []
    for pid in marked(str(state)):
        with contextlib.suppress(OSError):  # gone meanwhile
            if b"waiter" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether the condition becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return condition()


def entries(state: Path) -> list[str]:
    """Names of the files in the ledger."""
    directory = state / "instances"
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def install(site: Path, distribution: str, entries: str, source: str, group: str) -> None:
    """Leave a distribution of one module in a directory, as an installer would."""
    module = distribution.replace("-", "_")
    (site / f"{module}.py").write_text(source)
    metadata = site / f"{module}-1.2.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
    )
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{entries}\n")
