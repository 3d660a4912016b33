"""The last steps of a process before it becomes the command: confined, then replaced."""

from __future__ import annotations

import errno
import json
import os
import platform
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any, NoReturn

from claw_core.local import landlock, processes, seccomp, transfer
from claw_core.local.setup import SCRATCH, Setup

SYSTEM_READABLE = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store",
    "/proc",
)  # fmt: skip
"""What the guard engine lets a payload read, beside the list of /etc and the interpreter."""


class Confinement:
    """What holds a payload, prepared once for all commands of an instance."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        writable = [mount["target"] for mount in setup.mounts if mount["writable"]]
        readable = [mount["target"] for mount in setup.mounts if not mount["writable"]]
        if setup.engine == "namespaces":
            self._readable = ["/"]
            self._writable = [*SCRATCH, "/dev", "/proc", *writable]
            # Signals cannot leave the pid namespace; inside, commands may signal each other.
            self._scope = landlock.SCOPE_ABSTRACT_SOCKETS
            families = [seccomp.AF_UNIX, seccomp.AF_INET, seccomp.AF_INET6, seccomp.AF_NETLINK]
            protected: list[int] = []
        else:
            from claw_core.local.root import DEVICES, ETC

            self._readable = [*SYSTEM_READABLE, *(f"/etc/{name}" for name in ETC), *setup.prefixes]
            self._readable += readable
            self._writable = [setup.scratch, "/dev/pts", *(f"/dev/{name}" for name in DEVICES)]
            self._writable += writable
            self._scope = landlock.SCOPE_ABSTRACT_SOCKETS | landlock.SCOPE_SIGNALS
            families = [seccomp.AF_INET, seccomp.AF_INET6] if setup.share_network else []
            protected = [os.getpid()]
        self._rules = seccomp.rules(families, protected)
        self._machine = platform.machine()
        self._code = seccomp.encode(seccomp.program(self._machine, self._rules))

    def apply(self) -> None:
        """Confine this process for good."""
        setup = self.setup
        if setup.engine == "guard":
            # The supervisor of this very command must be out of reach as well.
            rules = seccomp.rules(
                [family for family in (seccomp.AF_INET, seccomp.AF_INET6) if setup.share_network],
                [os.getppid(), _parent_of(os.getppid())],
            )
            self._code = seccomp.encode(seccomp.program(self._machine, rules))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # In a user namespace of its own the limit counts just the instance; without one, everything
        # that its user runs.
        others = processes.count_of(setup.uid) if setup.engine == "guard" else 0
        _lower(resource.RLIMIT_NPROC, setup.processes + others)
        if setup.limit_data and setup.memory is not None:
            _lower(resource.RLIMIT_DATA, setup.memory)
        install = seccomp.installer(self._code)
        # A network of its own is nobody else's: servers and clients inside may use it.
        network = setup.engine == "namespaces" or setup.share_network
        landlock.restrict(self._readable, self._writable, scope=self._scope, network=network)
        install()


def _lower(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    wanted = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (wanted, wanted))


def _parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        line = file.read()
    return int(line[line.rindex(b")") + 2 :].split()[1])


def start(
    confine: Confinement,
    wanted: dict[str, Any],
    streams: tuple[int, int, int],
    leash: socket.socket,
) -> NoReturn:
    """Become the command; what prevents it goes up the leash. Never returns."""
    stage, up = "start", leash.fileno()
    try:
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, up)
        os.closerange(up + 1, os.sysconf("SC_OPEN_MAX"))
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        stage = "workdir"
        os.chdir(wanted["workdir"] or confine.setup.workdir)
        stage = "confine"
        work = _work(wanted, {**confine.setup.env, **wanted["env"]})
        confine.apply()
        stage = wanted["action"]
        work()
    except (OSError, MemoryError) as error:
        number = getattr(error, "errno", None) or errno.ENOMEM
        os.write(up, report_failure(number, stage, str(error)))
        os._exit(125)
    os._exit(0)


def report_failure(number: int, stage: str, detail: str) -> bytes:
    """The message for a command that was not started, or that did not do its work."""
    return json.dumps({"failed": number, "stage": stage, "detail": detail}).encode() + b"\n"


def _work(wanted: dict[str, Any], env: dict[str, str]) -> Callable[[], None]:
    if wanted["action"] == "unpack":
        return lambda: transfer.unpack(wanted["path"])
    if wanted["action"] == "pack":
        return lambda: transfer.pack(wanted["path"])
    return lambda: _execute(wanted["argv"], env)


def _execute(argv: list[str], env: dict[str, str]) -> NoReturn:
    """Look the program up as a shell does: a file that cannot be run wins over none."""
    program = argv[0]
    if "/" in program:
        os.execve(program, argv, env)
    refused: OSError | None = None
    for directory in env.get("PATH", "/usr/bin:/bin").split(":"):
        try:
            os.execve(f"{directory or '.'}/{program}", argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            refused = error
    raise refused or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)
