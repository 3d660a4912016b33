"""What a guest is made of: namespaces, a root over the image's files, and processes in it."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal

from simulators.container.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_libc = ctypes.CDLL(None, use_errno=True)
_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
_NEWPID, _NEWNET = 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_PDEATHSIG, _CAPBSET_DROP = 1, 24
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


def separate(name: str, *, network: bool) -> None:
    """Leave the host's namespaces; the next child of this process is PID 1 of the guest.

    Args:
        name: the guest's host name.
        network: whether it keeps the host's network.
    """
    user, group = os.getuid(), os.getgid()
    flags = _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | (0 if network else _NEWNET)
    _check(_libc.unshare(flags | (_NEWUSER if user else 0)), "unshare")
    if user:
        for file, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {user} 1"),
            ("gid_map", f"0 {group} 1"),
        ):
            with open(f"/proc/self/{file}", "w", encoding="utf-8") as map_:
                map_.write(text)
    _mount("none", "/", "", _REC | _PRIVATE)
    _check(_libc.sethostname(name.encode(), len(name.encode())), "sethostname")


def make_root(bundle: str, lower: str, configuration: dict[str, Any]) -> str:
    """Mount the guest's root, and return where."""
    root = f"{bundle}/root"
    for part in ("root", "upper", "work"):
        os.makedirs(f"{bundle}/{part}", exist_ok=True)
    options = f"lowerdir={lower},upperdir={bundle}/upper,workdir={bundle}/work"
    _mount("overlay", root, "overlay", 0, options + (",userxattr" if os.getuid() else ""))
    for part in ("proc", "sys", "dev", "tmp", "run"):
        os.makedirs(f"{root}/{part}", exist_ok=True)
    _mount("tmpfs", f"{root}/dev", "tmpfs", _NOSUID, "mode=755,size=64k")
    for device in ("null", "zero", "full", "random", "urandom"):
        with open(f"{root}/dev/{device}", "wb"):
            pass
        _mount(f"/dev/{device}", f"{root}/dev/{device}", "", _BIND)
    for link, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"{root}/dev/{link}")
    os.mkdir(f"{root}/dev/shm")
    _mount("shm", f"{root}/dev/shm", "tmpfs", _NOSUID | _NODEV, "mode=1777,size=64m")
    for mount in configuration["mounts"]:
        _mount_one(root, mount)
    if configuration["readOnly"]:
        _mount("none", root, "", _REMOUNT | _BIND | _RDONLY)
    return root


def _mount_one(root: str, mount: dict[str, Any]) -> None:
    target = root + os.path.normpath(f"/{mount['destination']}")
    options = mount["options"]
    if "tmpfs" in mount["type"]:
        os.makedirs(target, exist_ok=True)
        given = ",".join(one for one in options if "=" in one)
        _mount("tmpfs", target, "tmpfs", _NOSUID | _NODEV, given)
        return
    source = mount["source"]
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "ab"):
            pass
    _mount(source, target, "", _BIND)
    if "ro" in options:
        _mount("none", target, "", _REMOUNT | _BIND | _RDONLY)


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
            _mount("proc", f"{root}/proc", "proc", 0)
        os.chroot(root)
        where = configuration["workingDirectory"] or "/"
        os.makedirs(where, exist_ok=True)
        os.chdir(where)
        for limit in configuration["rlimits"]:
            kind = getattr(resource, limit["limit"])
            resource.setrlimit(kind, (limit["soft"], limit["hard"]))
        _take_rights(configuration)
        if init:
            _die_with_parent(alive)
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
            _libc.prctl(_CAPBSET_DROP, number, 0, 0, 0)  # one that the kernel lacks is no loss
    user, group = _identity(configuration["user"])
    if os.getuid() == 0 and not _mapped():
        os.setgroups(configuration["supplementalGroups"])
    if group:
        os.setgid(group)
    if user:
        os.setuid(user)


def _mapped() -> bool:
    with open("/proc/self/setgroups", encoding="utf-8") as file:
        return file.read().strip() == "deny"


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
    argv = [program, *configuration["arguments"]]
    _execve(found, argv, variables)
    number = ctypes.get_errno()
    raise Failure("internalError", f"exec {found}: {os.strerror(number)}")


def _execve(path: str, argv: list[str], variables: list[str]) -> None:
    """Unlike `os.execve` this keeps a variable that is there twice."""
    words = [one.encode(errors="surrogateescape") for one in argv]
    pairs = [one.encode(errors="surrogateescape") for one in variables]
    _libc.execve(
        path.encode(),
        (ctypes.c_char_p * (len(words) + 1))(*words, None),
        (ctypes.c_char_p * (len(pairs) + 1))(*pairs, None),
    )


def _die_with_parent(alive: int) -> None:
    _check(_libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    try:
        os.read(alive, 1)
    except BlockingIOError:
        return  # the parent holds the other end, so it lives
    os._exit(137)


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


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    done = _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode())
    _check(done, f"mount {target}")


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def describe(configuration: dict[str, Any]) -> str:
    """A process, for a log."""
    return json.dumps([configuration["executable"], *configuration["arguments"]])
