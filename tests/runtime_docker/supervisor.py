"""A private engine for tests: in namespaces of its own, and gone with whoever uses it.

    python supervisor.py outer DIRECTORY [podman | bridge] [dockerd options]
    python supervisor.py outer DIRECTORY data=SIZE [dockerd options]

`podman` makes it a Podman, `bridge` gives it a network in its own namespace, `data=SIZE` a disk of
that size.

Users hold a shared lock on DIRECTORY/users. The outer process starts PID 1 of a new pid namespace.
That ends as soon as nobody holds the lock any more, however its users end, and the kernel kills
everything in its namespace; then the outer process removes the directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def outer(directory: Path, options: list[str]) -> None:
    """Own the namespaces and the directory, as nobody's child."""
    if os.fork():
        os._exit(0)
    group = f"claw-test-{directory.name}"
    options = [*options, f"--cgroup-parent=/{group}"]
    inner = [sys.executable, __file__, "inner", str(directory)]
    argv = ["unshare", "-m", "-n", "-p", "--fork", "--kill-child=KILL", "--mount-proc", *inner]
    with subprocess.Popen([*argv, *options]) as unshared:
        # Whoever enters a namespace of the engine needs a pid of this one's.
        (directory / "namespace").write_text(str(unshared.pid))
    # Below each controller, or at the top: other engines make and remove groups meanwhile.
    for place in (CGROUPS / group, *CGROUPS.glob(f"*/{group}")):
        for folder, _, _ in os.walk(place, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
    shutil.rmtree(directory, ignore_errors=True)


def inner(directory: Path, options: list[str]) -> None:
    """PID 1: reaps, starts engines when told to, and exits with its last user."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    if options[0].startswith("data="):
        size = options.pop(0).removeprefix("data=")
        (directory / "data").mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(directory / "data")]
        subprocess.run(mount, check=True)
    engine = Engine(directory, options)
    engine.start()
    threading.Thread(target=engine.reap, daemon=True).start()
    threading.Thread(target=wait_for_users, args=(directory,), daemon=True).start()
    commands = directory / "commands"
    os.mkfifo(commands)
    while True:
        with commands.open() as pipe:
            for line in pipe:
                engine.obey(line.strip())


def wait_for_users(directory: Path) -> None:
    """Exit, and so kill the whole pid namespace, as soon as nobody uses it."""
    with (directory / "users").open() as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        os._exit(0)


class Engine:
    """A dockerd that can be stopped, killed and started again."""

    def __init__(self, directory: Path, options: list[str]) -> None:
        self.directory = directory
        bridge = [] if options[0] == "bridge" else ["--bridge", "none"]
        if options[0] in {"bridge", "podman"}:
            kind, *options = options
        else:
            kind = "docker"
        if kind == "podman":
            # It raises limits by default, which takes a capability that not every root has.
            files, tasks = resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4096
            configuration = directory / "containers.conf"
            configuration.write_text(
                "[containers]\n"
                f'default_ulimits = ["nofile={files}:{files}", "nproc={tasks}:{tasks}"]\n'
            )
            os.environ["CONTAINERS_CONF"] = str(configuration)
            self.argv = [
                "podman", "--root", f"{directory}/data", "--runroot", f"{directory}/exec",
                "--tmpdir", f"{directory}/tmp", "--cgroup-manager", "cgroupfs",
                "--runtime", "runc", "system", "service", "-t", "0", f"unix://{directory}/d.sock",
            ]  # fmt: skip
        else:
            self.argv = [
                "dockerd", "-D", "-H", f"unix://{directory}/d.sock",
                "--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec",
                "-p", f"{directory}/pid", *bridge, "--iptables=false",
                "--ip-forward=false", "--ip-masq=false", *options,
            ]  # fmt: skip
        self.pid = 0
        self.dead: set[int] = set()

    def start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.directory / "pid").unlink()
        with (self.directory / "log").open("ab") as log, open(os.devnull, "rb") as nothing:
            actions = [
                (os.POSIX_SPAWN_DUP2, source, target)
                for target, source in enumerate((nothing.fileno(), log.fileno(), log.fileno()))
            ]
            self.pid = os.posix_spawnp(self.argv[0], self.argv, os.environ, file_actions=actions)

    def obey(self, line: str) -> None:
        """Do `start`, or `signal N`; say in a file that it was done."""
        verb, _, argument = line.partition(" ")
        number, _, reply = argument.partition(" ")
        if verb == "start":
            reply = argument
            self.start()
        else:
            os.kill(self.pid, int(number))
            while int(number) in {signal.SIGTERM, signal.SIGKILL} and self.pid not in self.dead:
                time.sleep(0.005)
        (self.directory / reply).touch()

    def reap(self) -> None:
        """Reap every orphan, as PID 1 must: an engine waits for a containerd that is a zombie."""
        while True:
            try:
                self.dead.add(os.wait()[0])
            except ChildProcessError:
                time.sleep(0.005)


if __name__ == "__main__":
    where, rest = Path(sys.argv[2]), sys.argv[3:]
    {"outer": outer, "inner": inner}[sys.argv[1]](where, rest)
