"""Checks of what may not come out of, or into, an instance: writes, connections, secrets."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from claw_core.model import Mount, Refusal, Spec
from claw_core.router import Router
from claw_core.testing.contract.endings import configured, deadlines
from claw_core.testing.contract.stage import Stage
from claw_core.testing.contract.verdict import Broken, about

_TRIES: Final = """
for address in "$@"; do
    host=${address%:*} port=${address##*:}
    if command -v python3 > /dev/null; then
        python3 -c 'import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)' "$host" "$port"
    elif command -v nc > /dev/null; then
        nc -w 2 "$host" "$port" < /dev/null
    elif command -v bash > /dev/null; then
        bash -c ': < "/dev/tcp/$0/$1"' "$host" "$port"
    else
        echo nothing to try with
    fi
done 2> /dev/null
exit 0
"""


@about("assess")
async def a_mount_is_what_it_was_asked_for(stage: Stage) -> None:
    """A mount shows the host's files, and a read-only one cannot be written to."""
    if not stage.case.mounts:
        return
    writable = stage.heart("writable")
    (mount,) = writable.mounts
    (writable.directory / "file").write_text("of the host\n")
    (writable.directory / "file").chmod(0o666)  # the instance's user may be any
    mounts: tuple[Mount, ...] = (mount,)
    locked = stage.heart("locked").directory
    (locked / "file").write_text("of the host\n")
    (locked / "file").chmod(0o666)  # so only the mount keeps it from changing
    read_only = Mount(locked, stage.case.inside(locked), authorised=True)
    answer = await stage.runtime.assess(Spec(image=stage.case.image, mounts=(mount, read_only)))
    if not isinstance(answer, Refusal):
        mounts = (mount, read_only)
    async with stage.instance(Spec(mounts=mounts)) as live:
        for each in mounts:
            seen = await live.run("cat", f"{each.target}/file")
            if seen.out != b"of the host\n":
                raise Broken(f"a mounted file reads {seen}", hook="start")
        await live.run(f"echo changed > {mount.target}/file")
        if (writable.directory / "file").read_text() != "changed\n":
            raise Broken("what is written to a writable mount is not on the host", hook="start")
        if read_only in mounts:
            changes = (
                f"echo changed >> {read_only.target}/file",
                f"echo new > {read_only.target}/new",
                f"rm -f {read_only.target}/file",
                f"mount -o remount,rw {read_only.target} && echo new > {read_only.target}/new",
            )
            for change in changes:
                await live.run(change)
            left = {path.name: path.read_text() for path in locked.iterdir()}
            if left != {"file": "of the host\n"}:
                raise Broken("a read-only mount was changed from inside", hook="start")


@about("assess")
async def without_a_network_nothing_is_reached(stage: Stage) -> None:
    """Where no network is promised, nothing on the host is reached, loopback included."""
    spec = Spec(image=stage.case.image, network="none")
    if isinstance(await stage.runtime.assess(spec), Refusal):
        return
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("0.0.0.0", 0)))  # noqa: S104
        listener.setblocking(False)
        addresses = [f"{host}:{listener.getsockname()[1]}" for host in _addresses()]
        async with stage.instance(spec) as live:
            await live.run("sh", "-c", _TRIES, "sh", *addresses)
        try:
            connection, peer = listener.accept()
        except BlockingIOError:
            return
        connection.close()
        raise Broken(f"a listener of the host at {addresses} was reached, from {peer[0]}")


@about("execute")
async def a_secret_is_delivered_and_nowhere_else(stage: Stage) -> None:
    """A secret is in the command's environment, and in no argument, file, record or listing."""
    canary = secrets.token_hex(16)
    held, started = asyncio.Event(), time.time()
    found: list[str] = []
    said = bytearray()

    async def sink(data: bytes) -> None:
        said.extend(data)
        held.set()

    async with Router.open(state=stage.case.state, config=configured(stage)) as router:
        session = router.session(
            runtime=stage.case.runtime,
            image=stage.case.image,
            secrets={"CANARY": canary},
            deadlines=deadlines(stage),
        )
        async with session as live:
            program = 'printf %s "$CANARY"; read -r _'
            over = asyncio.Event()
            work = asyncio.create_task(
                live.run(["sh", "-c", program], stdin=_line_after(over), stdout=sink)
            )
            waiting = asyncio.create_task(held.wait())
            await asyncio.wait({work, waiting}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            found += await asyncio.to_thread(_arguments, canary)
            found += await asyncio.to_thread(_files, stage.case.directory, canary, started)
            listed = await stage.runtime.list_instances(stage.ledger.install)
            found += [f"the listing {name}" for name in listed if canary in name]
            over.set()
            await work
    found += await asyncio.to_thread(_files, stage.case.directory, canary, started)
    if said.decode(errors="replace") != canary:
        raise Broken(f"the command saw {len(said)} bytes, the secret has {len(canary)}")
    if found:
        raise Broken(f"a secret is in {', '.join(sorted(set(found)))}")


async def _line_after(event: asyncio.Event) -> AsyncIterator[bytes]:
    await event.wait()
    yield b"\n"


def _addresses() -> list[str]:
    """Addresses of this machine; the second one without sending anything."""
    found = ["127.0.0.1"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        found.append(probe.getsockname()[0])
    return found


def _arguments(text: str) -> list[str]:
    """Programs of this machine that have a text in their arguments."""
    if Path("/proc/self/cmdline").exists():
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # it has ended, or is no process
                if entry.name.isdigit() and text.encode() in (entry / "cmdline").read_bytes():
                    found.append(f"the arguments of {(entry / 'comm').read_text().strip()}")
        return found
    done = subprocess.run(
        ["ps", "-axww", "-o", "args="],  # noqa: S607 - of the system
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    lines = [line for line in done.stdout.splitlines() if text in line]
    return [f"the arguments of {line.split()[0]}" for line in lines]


def _files(directory: Path, text: str, since: float) -> list[str]:
    """Files that contain a text: of the check's directory, and temporary ones that are new."""
    found = []
    for path in (*directory.rglob("*"), *_temporary(since)):
        with contextlib.suppress(OSError):  # removed meanwhile
            if path.is_file() and text.encode() in path.read_bytes():
                found.append(str(path))
    return found


def _temporary(since: float) -> Iterator[Path]:
    """What is new in the directory of temporary files."""
    for entry in Path(tempfile.gettempdir()).iterdir():
        with contextlib.suppress(OSError):
            if entry.lstat().st_mtime >= since - 1.0 and not entry.is_symlink():
                yield entry
                yield from entry.rglob("*")


CHECKS: Final = (
    a_mount_is_what_it_was_asked_for,
    without_a_network_nothing_is_reached,
    a_secret_is_delivered_and_nowhere_else,
)
