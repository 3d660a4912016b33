"""The last steps of a process before it becomes the command: confined, then replaced."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import resource
import signal
import socket
from collections.abc import Callable, Collection, Sequence
from fcntl import ioctl
from typing import Any, Final, NoReturn

from claw_core.local import kernel, landlock, seccomp, transfer
from claw_core.local.processes import count_of
from claw_core.local.root import DEVICES, ETC, open_source
from claw_core.local.setup import MARKER, SCRATCH, Failure, Setup

SYSTEM_READABLE = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store",
    "/proc",
)  # fmt: skip
"""What the guard engine lets a payload read, beside the list of /etc and the interpreter."""

_SUPERVISOR: Final = 0x7FEDCBA9
"""Stands in the filter for a pid that is known only after the fork; no pid is that large."""
_TIOCSCTTY: Final = 0x540E


class Confinement:
    """What holds a payload, prepared once for all commands of an instance.

    Nothing of it depends on a path later on: a payload may have replaced what is there.

    Raises:
        Failure: the engine cannot hold a payload here, or a mount is not there any more.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._version = landlock.version()
        if setup.engine == "namespaces":
            families = [seccomp.AF_INET, seccomp.AF_INET6, seccomp.AF_NETLINK]
            if self._version >= 6 or not setup.share_network:
                # Abstract sockets belong to the network namespace, and that may be the host's.
                families.append(seccomp.AF_UNIX)
            self._filter = seccomp.program(platform.machine(), seccomp.rules(families))
            self._code = seccomp.encode(self._filter)
            self._landlock = _rules_of_own_tree(setup)
        else:
            if not self._version:
                raise Failure(
                    "this kernel has no Landlock, or does not let it be used",
                    "use a kernel of 5.13 or later with Landlock enabled (lsm=landlock,...)",
                )
            rules = seccomp.rules_of_shared_system(
                [seccomp.AF_INET, seccomp.AF_INET6] if setup.share_network else [],
                [os.getpid(), _SUPERVISOR],
                truncation=self._version >= 3,
            )
            self._filter = seccomp.program(platform.machine(), rules)
            self._landlock = _rules_of_shared_tree(setup)

    def apply(self) -> None:
        """Confine this process for good."""
        setup, processes = self.setup, self.setup.processes
        if setup.engine == "guard":
            # The supervisor of this very command must be out of reach as well.
            supervisor = os.getppid()
            pids = {_SUPERVISOR: supervisor, -_SUPERVISOR: -supervisor}
            self._code = seccomp.encode(self._filter, pids)
            # In a user namespace of its own the limit counts just the instance; without one,
            # everything that its user runs.
            processes += count_of(setup.uid)
        # Not 0: a host whose core_pattern is a pipe would start its program, as root, even then.
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
        _lower(resource.RLIMIT_NPROC, processes)
        if setup.limit_data and setup.memory is not None:
            _lower(resource.RLIMIT_DATA, setup.memory)
        install = seccomp.installer(self._code)
        if self._landlock is not None:
            landlock.enter(self._landlock)
        install()


def _rules_of_own_tree(setup: Setup) -> int | None:
    """A second lock on what the mounts forbid already."""
    writable = [mount["target"] for mount in setup.mounts if mount["writable"]]
    return landlock.make(
        ["/"],
        [*SCRATCH, "/dev", "/proc", *writable],
        # Signals cannot leave the pid namespace; inside, commands may signal each other.
        scope=landlock.SCOPE_ABSTRACT_SOCKETS,
        # A network of its own is nobody else's: servers and clients inside may use it.
        network=True,
    )


def _rules_of_shared_tree(setup: Setup) -> int | None:
    """The only lock on the host's own tree."""
    opened = [(open_source(mount["source"]), mount["writable"]) for mount in setup.mounts]
    try:
        return landlock.make(
            [
                *SYSTEM_READABLE,
                *(f"/etc/{name}" for name in ETC),
                *setup.prefixes,
                *(descriptor for descriptor, writable in opened if not writable),
            ],
            # No /dev/pts: the caller's own terminals are there.
            [
                setup.scratch,
                *(f"/dev/{name}" for name in DEVICES),
                *(descriptor for descriptor, writable in opened if writable),
            ],
            scope=landlock.SCOPE_ABSTRACT_SOCKETS | landlock.SCOPE_SIGNALS,
            network=setup.share_network,
        )
    finally:
        for descriptor, _ in opened:
            os.close(descriptor)


def _lower(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    wanted = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (wanted, wanted))


def _be_first_to_die() -> None:
    """When memory runs out, let it end the command before what holds the instance together."""
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # or the file would belong to root
    with contextlib.suppress(OSError):
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"500")
        finally:
            os.close(descriptor)


def _close_all_but(kept: Collection[int]) -> None:
    """Close what was inherited; by name, for the limit on descriptors may be a billion."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):  # the listing's own is closed already
                os.close(int(name))


def start(
    confine: Confinement,
    wanted: dict[str, Any],
    streams: Sequence[int],
    leash: socket.socket,
) -> NoReturn:
    """Become the command; what prevents it goes up the leash. Never returns.

    Args:
        confine: what holds it.
        wanted: the request.
        streams: the three standard streams, or the terminal that is all of them.
        leash: the way up.
    """
    stage, up = "start", leash.fileno()
    try:
        os.setsid()
        if "terminal" in wanted:
            ioctl(streams[0], _TIOCSCTTY, 0)
            streams = [*streams] * 3
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            # Under nohup claw itself ignores some, and children would inherit that.
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        stage = "workdir"
        os.chdir(wanted["workdir"] or confine.setup.workdir)
        stage = "confine"
        work = _work(wanted, {**confine.setup.env, **wanted["env"], MARKER: confine.setup.name})
        _be_first_to_die()
        confine.apply()
        _close_all_but({0, 1, 2, up})
        stage = wanted["action"]
        work()
    except BaseException as error:  # noqa: BLE001 - whatever it is, this process must not go on
        number = errno.ENOMEM if isinstance(error, MemoryError) else errno.EINVAL
        number = getattr(error, "errno", None) or number
        os.write(up, report_failure(number, stage, str(error) or type(error).__name__))
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
        path = f"{directory or '.'}/{program}"
        try:
            os.execve(path, argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            if os.path.exists(path):  # else only the directory is out of reach
                refused = error
    raise refused or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)
