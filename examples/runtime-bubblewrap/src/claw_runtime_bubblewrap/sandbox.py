"""What a sandbox is made of: the options of bwrap, and what they cannot give."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from claw_core.errors import RuntimeFault
from claw_core.model import Refusal, Spec
from claw_core.tasks import persist
from claw_runtime_bubblewrap import processes, scratch

PLACES: Final = ("/tmp", "/home/agent", "/workspace")  # noqa: S108 - inside the sandbox
"""Where commands may write; all sandboxes of an instance share it."""

_ISOLATED: Final = (
    *("--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"),
    *("--die-with-parent", "--new-session", "--proc", "/proc", "--dev", "/dev"),
)
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC: Final = (
    "alternatives", "ca-certificates", "group", "hosts", "ld.so.cache", "localtime",
    "nsswitch.conf", "passwd", "pki/ca-trust", "pki/tls/certs", "ssl/certs", "ssl/openssl.cnf",
)  # fmt: skip
_TAKEN: Final = (*_SYSTEM, "/etc", "/proc", "/dev", processes.MARKED)
_ENV: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/home/agent",
    "USER": "agent",
    "LANG": "C.UTF-8",
}
_PROBE_TIMEOUT: Final = 5.0


async def probe() -> str | Refusal:
    """The version of bwrap, once it has made a sandbox; else why it cannot."""
    try:
        scratch.place()
        version = await _output("bwrap", "--version")
        await _output("bwrap", *_ISOLATED, *_files(), "true")
    except RuntimeFault as error:
        remedy = "install bubblewrap 0.8 or later and allow user namespaces"
        return Refusal(error.message, error.remedy or remedy)
    return version.split()[-1]


def refusal(spec: Spec) -> Refusal | None:
    """Say why a spec cannot be had, or return None."""
    if spec.image is not None:
        return Refusal(
            f"bubblewrap has no images, and {spec.image!r} is asked for", "leave the image out"
        )
    resources = spec.resources
    if (resources.cpus, resources.memory, resources.processes) != (None, None, None):
        return Refusal("bubblewrap cannot bound resources", "leave the bounds out, or -r local")
    # A mount point is made by bwrap, so it must not be where something inside could have put a link
    # that leads out: neither in a place that commands write to, nor in another mount.
    seen: list[str] = []
    for mount in spec.mounts:
        target = _normal(mount.target)
        others = [*_TAKEN, *seen, *(place for place in PLACES if place != target)]
        if any(_overlap(target, other) for other in others):
            return Refusal(
                f"bubblewrap cannot mount at {mount.target!r}: the place is taken",
                "choose a place of its own, for instance below /mnt",
            )
        seen.append(target)
    return None


def options(spec: Spec, directory: Path, env: Mapping[str, str], workdir: str | None) -> list[str]:
    """The options of one sandbox; they hold secrets, so they are no arguments: see `memory`."""
    found = [*_ISOLATED, *_files(), "--clearenv"]
    if spec.network == "default":
        found += ["--share-net", "--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf"]
    targets = {_normal(mount.target): mount for mount in spec.mounts}
    for place in PLACES:
        if place not in targets:
            found += ["--bind", str(scratch.part(directory, place)), place]
    for target, mount in targets.items():
        found += ["--bind" if mount.writable else "--ro-bind", str(mount.source), target]
    for name, value in {**_ENV, **env}.items():
        found += ["--setenv", name, value]
    directories = (target for target, mount in targets.items() if mount.source.is_dir())
    start = workdir or spec.workdir or next(directories, PLACES[-1])
    return [*found, "--remount-ro", "/", "--chdir", start]


@contextlib.contextmanager
def memory(texts: Sequence[str] = ()) -> Iterator[int]:
    """A descriptor of a file that is nowhere, with texts as bwrap reads them."""
    with os.fdopen(os.memfd_create("bwrap"), "wb") as file:
        file.write(b"".join(os.fsencode(text) + b"\0" for text in texts))
        file.seek(0)
        yield file.fileno()


def _files() -> list[str]:
    """The read-only system files; on most systems /bin and /lib are links into /usr."""
    found = []
    for path in _SYSTEM:
        if (link := Path(path)).is_symlink():
            found += ["--symlink", str(link.readlink()), path]
        else:
            found += ["--ro-bind-try", path, path]
    for name in _ETC:
        found += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return found


def _normal(target: str) -> str:
    return "/" + os.path.normpath(target).strip("/")


def _overlap(one: str, other: str) -> bool:
    return one == "/" or f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


async def _output(*argv: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={},
        )
    except OSError as error:
        raise RuntimeFault(f"{argv[0]} cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT):
            text = (await process.communicate())[0].decode(errors="replace").strip()
    except TimeoutError:
        raise RuntimeFault(f"{argv[0]} does not answer") from None
    finally:
        if process.returncode is None:
            process.kill()
            await persist(process.wait())
    if process.returncode:
        raise RuntimeFault(text or f"{argv[0]} ended with {process.returncode}")
    return text
