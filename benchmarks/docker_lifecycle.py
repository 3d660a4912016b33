"""claw on a Docker engine beside the `docker` command: `python benchmarks/docker_lifecycle.py`.

Starts a private engine, which takes root. Both sides have the same image and the same options.
"""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import claw_core
from claw_core.session import Session
from measure import Sample, middle, show, timed, wall
from runtime_docker import engines
from runtime_docker.engines import IMAGE

ROUNDS = 15
MEMORY = str(4 << 30)
HARDENED = [
    "--network=none", "--init", "--cap-drop=ALL", "--security-opt=no-new-privileges",
    "--read-only", "--log-driver=none", "--ipc=private", f"--memory={MEMORY}",
    f"--memory-swap={MEMORY}", "--pids-limit=1024", "--user=65533:65533", "--ulimit=core=0:0",
    *(f"--tmpfs={place}:rw,exec,nosuid,nodev" for place in ("/tmp", "/run", "/home/agent")),
]  # fmt: skip
RUN = ["docker", "run", "--rm", *HARDENED, IMAGE]
CLAW = [sys.executable, "-m", "claw_core", "run", "-q", "-r", "docker", "--image", IMAGE, "--"]
MEGABYTES = 256


def main() -> None:
    """Print ratios, each of medians of one interleaved run."""
    if why := engines.missing():
        print(f"docker: not measured, {why}")
        return
    with tempfile.TemporaryDirectory() as state, engines.private() as engine:
        Path(state).chmod(0o700)
        os.environ |= {"CLAW_STATE": state, "DOCKER_HOST": engine.host}
        asyncio.run(everything())


async def everything() -> None:
    """Measure with one open router, as a program does that embeds claw."""
    async with claw_core.Router.open(config=configured({"image": IMAGE})) as router:
        await lifecycle(router)
        await eight_at_once(router)
        async with router.session(runtime="docker") as session:
            await executions(session)
            await throughput(session)
        with tempfile.TemporaryDirectory() as folder:
            await uploads(Path(folder))


async def lifecycle(router: claw_core.Router) -> None:
    """One `true` in a container of its own."""
    known: list[float] = []
    gone: list[float] = []
    command: list[float] = []
    whole: list[float] = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        async with router.session(runtime="docker") as session:
            assert (await session.run(["true"])).code == 0
            known.append(time.perf_counter() - started)
        gone.append(time.perf_counter() - started)
        command.append(wall([*RUN, "true"])())
        whole.append(wall([*CLAW, "true"])())
    base = middle(command)
    print(f"docker run --rm, hardened: {base * 1000:.0f} ms")
    show("in process, exit code known / docker run --rm", middle(known) / base, 1.0)
    show("in process, verified gone / docker run --rm", middle(gone) / base, 1.25)
    show("claw run, whole process / docker run --rm", middle(whole) / base, 2.0)


async def eight_at_once(router: claw_core.Router) -> None:
    """Eight lifecycles together."""

    async def one() -> None:
        async with router.session(runtime="docker") as session:
            await session.run(["true"])

    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(3):
        ours.append(await timed(lambda: asyncio.gather(*(one() for _ in range(8)))))
        started = time.perf_counter()
        for process in [subprocess.Popen([*RUN, "true"]) for _ in range(8)]:
            process.wait()
        theirs.append(time.perf_counter() - started)
    show("8 sessions at once / 8 docker run --rm", middle(ours) / middle(theirs), 1.0)


async def executions(session: Session) -> None:
    """Another command in a container that runs."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(ROUNDS):
        ours.append(await timed(lambda: session.run(["true"])))
        theirs.append(wall(["docker", "exec", session.name, "true"])())
    show("a further command / docker exec", middle(ours) / middle(theirs), 1.0)


async def throughput(session: Session) -> None:
    """Standard output through to a sink."""
    argv = ["dd", "if=/dev/zero", "bs=1048576", f"count={MEGABYTES}"]

    async def sink(data: bytes) -> None:
        """Drop it."""

    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(3):
        ours.append(await timed(lambda: session.run(argv, stdout=sink)))
        theirs.append(piped(["docker", "exec", session.name, *argv])())
    print(f"standard output: {MEGABYTES / middle(ours):.0f} MB/s")
    show("256 MB of output / docker exec", middle(ours) / middle(theirs), 1.0)


def configured(table: Mapping[str, Any]) -> claw_core.Config:
    """A configuration that sets nothing but the runtime's own table."""
    return claw_core.Config.of(claw_core.Settings(runtimes={"docker": table}))


async def uploads(folder: Path) -> None:
    """One large file and many small ones, into a container whose files can be changed."""
    (folder / "large").write_bytes(os.urandom(100 << 20))
    (folder / "many").mkdir()
    for number in range(5000):
        (folder / "many" / str(number)).write_bytes(bytes(2048))
    writable = {"image": IMAGE, "read_only": False, "user": "0"}
    async with (
        claw_core.Router.open(config=configured(writable)) as router,
        router.session(runtime="docker") as session,
    ):
        for what, name in (("100 MB", "large"), ("5,000 files", "many")):
            ours: list[float] = []
            theirs: list[float] = []
            for number in range(5):
                source, target = folder / name, f"/tmp/{name}{number}"
                ours.append(await timed(functools.partial(session.upload, source, target)))
                copy = ["docker", "cp", "-q", str(source), f"{session.name}:/root/{name}{number}"]
                theirs.append(wall(copy)())
                await session.run(["rm", "-r", target, f"/root/{name}{number}"])
            show(f"upload of {what} / docker cp", middle(ours) / middle(theirs), 1.0)


def piped(argv: list[str]) -> Sample:
    """Seconds until everything was read through a pipe."""

    def sample() -> float:
        started = time.perf_counter()
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            while process.stdout.read(1 << 20):
                pass
        return time.perf_counter() - started

    return sample


if __name__ == "__main__":
    main()
