"""What claw costs before it does anything: `python benchmarks/start_up.py`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from measure import cpu, medians, show, wall

ROUNDS = 21
CLAW = str(Path(sys.executable).with_name("claw"))
BARE = [sys.executable, "-I", "-c", "pass"]

# The first failpoint of the local runtime is passed where the first call of the backend that has a
# side effect begins; ending the process there leaves exactly what claw spent before.
FIRST_CALL = "local.pre-spawn=kill"


def main() -> None:
    """Print the start-up ratios."""
    with tempfile.TemporaryDirectory() as state:
        env = {**os.environ, "CLAW_STATE": state}
        run = [CLAW, "run", "-r", "local", "--", "true"]
        wall(run, env)()  # the engine is probed once, and the probe remembered
        first = [
            sys.executable,
            "-c",
            "import subprocess, sys; subprocess.run(sys.argv[1:])",
            *run,
        ]
        times = medians(
            {"bare": wall(BARE), "version": wall([CLAW, "--version"]), "help": wall([CLAW, "-h"])},
            ROUNDS,
        )
        spent = medians(
            {
                "bare": cpu([sys.executable, "-c", "import subprocess, sys"]),
                "first": cpu(first, {**env, "CLAW_FAILPOINT": FIRST_CALL}),
            },
            ROUNDS,
        )
    show("claw --version / bare interpreter", times["version"] / times["bare"], 1.5)
    show("claw --help", times["help"] * 1000, 70, "ms")
    show("CPU before the first backend call", (spent["first"] - spent["bare"]) * 1000, 150, "ms")


if __name__ == "__main__":
    main()
