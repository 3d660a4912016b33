"""What the docker shim costs: `python benchmarks/shim.py`.

The second part starts a private engine, which takes root.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from claw_nanoclaw.shim import executable
from measure import medians, show, wall
from nanoclaw_shim import recordings
from nanoclaw_shim.world import World
from runtime_docker import engines

ROUNDS = 101
STOPS = 9
BARE = [sys.executable, "-I", "-S", "-c", "pass"]
COMMANDS = {
    "ps": ["ps", "-q"],
    "run": ["run", "--rm", "-e", "A=1", "-v", "/a:/b", "--name", "db", "image", "command"],
}


def main() -> None:
    """Print what a command costs that passes through, and how long a stop takes."""
    passing()
    if why := engines.missing():
        print(f"docker stop: not measured, {why}")
        return
    with tempfile.TemporaryDirectory() as name, engines.private("bridge") as engine:
        Path(name).chmod(0o755)
        (Path(name) / "state").mkdir(mode=0o700)
        os.environ["CLAW_STATE"] = f"{name}/state"
        world = World.make(Path(name), engine, "family")
        taken = statistics.median(stop(world) for _ in range(STOPS))
    show("docker stop -t 1 of a running container, until it is gone", taken, 1, "s")


def passing() -> None:
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


def stop(world: World) -> float:
    """Seconds that `docker stop` takes for a container whose runner is at work."""
    words = recordings.v1(world.root, "family")
    client = world.start(*words, stdin=recordings.message("family", "hang"))
    assert client.stdout is not None
    client.stdout.readline()
    started = time.perf_counter()
    done = world.docker("stop", "-t", "1", words[words.index("--name") + 1])
    taken = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    assert world.quiet()
    client.communicate()
    return taken


if __name__ == "__main__":
    main()
