"""Starts the processes of a guest: their rights, their directory, their program."""

from __future__ import annotations

import os
import resource
import signal

from simulators.container import linux
from simulators.container.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_ALL = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
    "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
    "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITIES = _ALL.split()
"""Names by number."""
_USUAL = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
    "SYS_CHROOT KILL AUDIT_WRITE"
)
DEFAULT = set(_USUAL.split())


def capabilities(configuration: dict[str, Any]) -> list[str] | None:
    """What is left to a container: all that is dropped goes first, then what is added comes."""
    drop = {one.upper().removeprefix("CAP_") for one in configuration["capDrop"]}
    add = {one.upper().removeprefix("CAP_") for one in configuration["capAdd"]}
    if not drop and not add:
        return None
    base = set() if "ALL" in drop else set(DEFAULT)
    base |= set(CAPABILITIES) if "ALL" in add else add
    return sorted(base - (drop - {"ALL"}))


def spawn(
    root: str, configuration: dict[str, Any], streams: tuple[int, int, int], *, init: bool
) -> int:
    """Start a process of the guest in a session of its own, and return its pid on the host.

    Args:
        root: where the guest's root is mounted.
        configuration: the process, as `initProcess` has it, with `capabilities` and `useInit`.
        streams: its standard streams.
        init: whether it is PID 1.

    Raises:
        Failure: why its program cannot be started.
    """
    told, tell = os.pipe()
    alive, life = os.pipe()
    os.set_blocking(alive, False)
    pid = os.fork()
    if not pid:
        os.close(life)
        _become(root, configuration, streams, tell, alive, init=init)
    os.close(tell)
    os.close(alive)
    with open(told, "rb") as file:
        said = file.read().decode()
    os.close(life)
    if said:
        os.waitpid(pid, 0)
        raise Failure("internalError", said)
    return pid


def _become(
    root: str,
    configuration: dict[str, Any],
    streams: tuple[int, int, int],
    tell: int,
    alive: int,
    *,
    init: bool,
) -> NoReturn:
    try:
        os.setsid()
        for number in (*range(1, 32), *range(34, 65)):
            if number not in {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_DFL)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        if init:
            linux.mount("proc", f"{root}/proc", "proc", 0)
        os.chroot(root)
        where = configuration["workingDirectory"] or "/"
        os.makedirs(where, exist_ok=True)
        os.chdir(where)
        for limit in configuration["rlimits"]:
            kind = getattr(resource, limit["limit"])
            resource.setrlimit(kind, (limit["soft"], limit["hard"]))
        _take_rights(configuration)
        if init:
            linux.die_with_parent(alive)
        if init and configuration.get("useInit"):
            _reap_as_init()
        _execute(configuration)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent is to hear of it
        os.write(tell, (str(error) or repr(error)).encode())
    finally:
        os._exit(127)


def _take_rights(configuration: dict[str, Any]) -> None:
    keep = configuration.get("capabilities")
    wanted = DEFAULT if keep is None else set(keep)
    for number, name in enumerate(CAPABILITIES):
        if name not in wanted:
            linux.drop_capability(number)
    user, group = _identity(configuration["user"])
    if not linux.mapped():
        os.setgroups(configuration["supplementalGroups"])
    if group:
        os.setgid(group)
    if user:
        os.setuid(user)


def _identity(user: dict[str, Any]) -> tuple[int, int]:
    if "id" in user:
        return user["id"]["uid"], user["id"]["gid"]
    name, _, group = user["raw"]["userString"].partition(":")
    with open("/etc/passwd", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split(":") for line in file]
    row = next((row for row in rows if name in (row[0], row[2])), None)
    if row is None and not name.isdigit():
        raise Failure("internalError", f"unable to find user {name}")
    uid, gid = (int(row[2]), int(row[3])) if row else (int(name), 0)
    return uid, int(group) if group.isdigit() else gid


def _execute(configuration: dict[str, Any]) -> NoReturn:
    program, variables = configuration["executable"], configuration["environment"]
    paths = [one[5:] for one in variables if one.startswith("PATH=")] or ["/usr/bin:/bin"]
    places = [program] if "/" in program else [f"{part}/{program}" for part in paths[0].split(":")]
    found = next((place for place in places if os.path.isfile(place)), None)
    if found is None:
        raise Failure("notFound", f"failed to find target executable {program}")
    linux.execve(found, [program, *configuration["arguments"]], variables)
    raise AssertionError(found)


def _reap_as_init() -> None:
    """Be an init process that passes signals on; return in the child that is the program."""
    pid = os.fork()
    if not pid:
        os.setsid()
        return
    for name in os.listdir("/proc/self/fd"):
        try:
            os.close(int(name))
        except OSError:
            continue
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    while True:
        ended, status = os.wait()
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
