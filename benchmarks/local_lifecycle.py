"""What a sandbox costs beside a plain process: `python benchmarks/local_lifecycle.py`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import claw_core
from measure import Sample, medians, wall

ROUNDS = 21
CLAW = str(Path(sys.executable).with_name("claw"))
GIGABYTE = "import os\nfor _ in range(4096): os.write(1, bytes(262144))"


def main() -> None:
    """Print times of one command, in process and as a whole command, and the throughput."""
    with tempfile.TemporaryDirectory() as state:
        os.environ["CLAW_STATE"] = state
        Path(state).chmod(0o700)
        inside = asyncio.run(in_process())
        times = medians(
            {"bare": wall(["/bin/true"]), "claw run": wall([CLAW, "run", "--", "true"])}, ROUNDS
        )
        speed = medians(
            {
                "bare": wall([sys.executable, "-c", GIGABYTE]),
                "piped": piped([sys.executable, "-c", GIGABYTE]),
                "claw run": piped([CLAW, "run", "--", "python3", "-c", GIGABYTE]),
            },
            3,
        )
    print(f"bare process                        {times['bare'] * 1000:8.1f} ms")
    print(f"session, in process, verified gone  {inside * 1000:8.1f} ms")
    print(f"claw run, whole command             {times['claw run'] * 1000:8.1f} ms")
    for name, seconds in speed.items():
        print(f"1 GB of stdout, {name:<19} {1 / seconds:8.2f} GB/s")


def piped(argv: list[str]) -> Sample:
    """Seconds until everything was read through a pipe."""

    def sample() -> float:
        started = time.perf_counter()
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            while process.stdout.read(1 << 20):
                pass
        return time.perf_counter() - started

    return sample


async def in_process() -> float:
    """Return the median of a whole session with one command, in an open router."""
    taken = []
    async with claw_core.Router.open() as router:
        for _ in range(ROUNDS):
            started = time.perf_counter()
            await router.run(["true"], runtime="local")
            taken.append(time.perf_counter() - started)
    return sorted(taken)[len(taken) // 2]


if __name__ == "__main__":
    main()
