"""The teardown guarantee under load: `python benchmarks/reliability.py soak` (or `release`).

Runs everything that can break it, an hour long or for a release, and prints a table in Markdown. A
leak, a bug that is not caught or a failpoint at which nobody dies is a failure, and exits with 1.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
PROFILES: Final[Mapping[str, Mapping[str, int]]] = {
    "soak": {"CLAW_SCHEDULES": 1_000_000, "CLAW_MODEL_KILLS": 10_000, "CLAW_KILLS": 1_000},
    "release": {"CLAW_SCHEDULES": 20_000_000, "CLAW_MODEL_KILLS": 200_000, "CLAW_KILLS": 10_000},
}
TESTS: Final = ("tests/properties", "tests/core/test_reaper.py", "tests/kills", "tests/seeded")


def main(arguments: Sequence[str]) -> int:
    """Run one profile; everything after its name goes to pytest."""
    if not arguments or arguments[0] not in PROFILES:
        print(f"usage: python benchmarks/reliability.py {'|'.join(PROFILES)} [PYTEST OPTIONS]")
        return 2
    profile, *options = arguments
    counts = {name: str(count) for name, count in PROFILES[profile].items()}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-m", "soak or not soak", "-q", *options, *TESTS],
            cwd=ROOT,
            env={**os.environ, **counts, "CLAW_RELIABILITY": str(told)},
            check=False,
        )
        lines = told.read_text().splitlines() if told.exists() else []
    print(table([json.loads(line) for line in lines]))
    print()
    print(f"`python benchmarks/reliability.py {profile}`, commit {commit()}, {today()},", end=" ")
    print(f"{(time.monotonic() - started) / 60:.0f} minutes.")
    return int(done.returncode != 0)


def table(told: Sequence[Mapping[str, Any]]) -> str:
    """What the tests said of themselves, as rows."""
    of: dict[str, list[Mapping[str, Any]]] = {}
    for line in told:
        of.setdefault(line["what"], []).append(line)
    rows = [("what", "count", "leaks")]
    for kind in ("schedules", "kills"):
        places: dict[str, list[Mapping[str, Any]]] = {}
        for line in of.get(kind, []):
            places.setdefault(line["where"], []).append(line)
        rows += [
            (f"{kind}, {where}", f"{total(lines, kind):,}", str(total(lines, "leaks")))
            for where, lines in places.items()
        ]
    for line in of.get("failpoints", [])[:1]:
        rows.append(
            ("failpoints at which somebody was killed", f"{line['hit']} of {line['of']}", "")
        )
    bugs = {line["name"] for line in of.get("bug", [])}
    rows.append(("seeded bugs caught", f"{len(bugs)} of {len(seeded())}", ""))
    rows.insert(1, ("---", "---:", "---:"))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def total(lines: Sequence[Mapping[str, Any]], key: str) -> int:
    """The sum of one number over lines."""
    return sum(int(line[key]) for line in lines)


def seeded() -> Sequence[object]:
    """The bugs that are to be caught."""
    sys.path.insert(0, str(ROOT / "tests"))
    from seeded.bugs import BUGS

    return BUGS


def commit() -> str:
    """The commit that was measured."""
    argv = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def today() -> str:
    """The date, as a reader sees it."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
