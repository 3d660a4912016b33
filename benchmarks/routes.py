"""How fast a warm router decides, in processor time: `python benchmarks/routes.py`."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path

from claw_core import Router
from claw_core.config.config import Config
from measure import show

GROUPS = 1_000
BUDGET = 10_000


def make(root: Path) -> None:
    """A thousand groups, a third of them with a file, another with a table in `claw.toml`."""
    # Without docker: what an engine needs for an answer is not what is measured here.
    lines = ['timeout = "30m"', 'prefer = ["apple", "tart", "local"]', "[env]", 'TZ = "UTC"']
    for number in range(GROUPS):
        folder = root / "groups" / f"group-{number}"
        folder.mkdir(parents=True)
        if number % 3 == 0:
            config = {"runtime": "local", "timeout": 600_000, "env": {"A": "b"}}
            (folder / "config.json").write_text(json.dumps({"containerConfig": config}))
        elif number % 3 == 1:
            lines += [f"[groups.group-{number}]", 'runtime = "local"', "processes = 100"]
    (root / "claw.toml").write_text("\n".join(lines) + "\n")


async def measure(root: Path) -> tuple[float, float]:
    """Routes a second of processor time: when every group is new, and when all are known."""
    config = Config.load(path=root / "claw.toml", root=root, environ={})
    async with Router.open(state=root / "state", config=config) as router:
        rates = []
        for _ in range(9):
            started = time.process_time()
            for number in range(GROUPS):
                route = await router.route(f"group-{number}")
                assert route.runtime == "local"
            rates.append(GROUPS / (time.process_time() - started))
    return rates[0], max(rates[1:])


def main() -> None:
    """Print the rate of cold and of warm routes, and the time of a warm one beside its budget."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory).resolve()
        root.chmod(0o700)
        make(root)
        cold, warm = asyncio.run(measure(root))
    print(f"{GROUPS} groups: {cold:.0f} routes/s when read first, {warm:.0f} routes/s warm")
    show(f"a warm route / 1 s : {BUDGET}", BUDGET / warm, 1)


if __name__ == "__main__":
    main()
