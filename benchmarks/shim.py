"""What the docker shim adds to a command that is not NanoClaw's: `python benchmarks/shim.py`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from claw_nanoclaw.shim import executable
from measure import medians, show, wall

ROUNDS = 101
BARE = [sys.executable, "-I", "-S", "-c", "pass"]
COMMANDS = {
    "ps": ["ps", "-q"],
    "run": ["run", "--rm", "-e", "A=1", "-v", "/a:/b", "--name", "db", "image", "command"],
}


def main() -> None:
    """Print the ratio of a command that passes through the shim to a bare interpreter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        real = folder / "real"
        real.mkdir()
        # The real command does nothing, so that what is measured is the way to it.
        (real / "docker").symlink_to("/bin/true")
        executable.write(folder, folder / "shim", None)
        env = {**os.environ, "PATH": f"{folder}/shim:{real}:/usr/bin:/bin"}
        samples = {
            kind: wall([str(folder / "shim" / "docker"), *words], env)
            for kind, words in COMMANDS.items()
        }
        times = medians({"bare": wall(BARE), **samples}, ROUNDS)
    for kind, words in COMMANDS.items():
        what = f"docker {words[0]} through the shim / bare interpreter"
        show(what, times[kind] / times["bare"], 2)


if __name__ == "__main__":
    main()
