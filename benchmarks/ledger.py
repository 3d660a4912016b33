"""What durability costs: `python benchmarks/ledger.py [DIRECTORY]`, else below HOME."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from claw_core.ledger import Intent, Ledger
from measure import show

ROUNDS = 500
ENTRIES = 10_000


def main() -> None:
    """Print the cost of a lifecycle beside that of its syncs, and of a scan."""
    base = Path(sys.argv[1]) if len(sys.argv) > 1 else Path.home()
    with tempfile.TemporaryDirectory(dir=base) as directory:
        Path(directory).chmod(0o700)
        ledger = Ledger.open(Path(directory))
        lifecycle, sync = [], []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            lease = ledger.acquire(Intent.new(ledger.install, "local"))
            lease.mark("running")
            lease.mark("stopping")
            lease.release()
            lifecycle.append(time.perf_counter() - started)
            with tempfile.TemporaryFile(dir=directory) as file:
                file.write(b"x" * 300)
                file.flush()
                started = time.perf_counter()
                os.fdatasync(file.fileno())
                sync.append(time.perf_counter() - started)
        for _ in range(ENTRIES):
            ledger.acquire(Intent.new(ledger.install, "local")).abandon()
        scans = []
        for _ in range(5):
            started = time.perf_counter()
            assert len(ledger.scan()) == ENTRIES
            scans.append(time.perf_counter() - started)
    whole, one = statistics.median(lifecycle) * 1000, statistics.median(sync) * 1000
    print(f"a data sync of this disk: {one:.3f} ms; a lifecycle with all its syncs: {whole:.3f} ms")
    show("ledger: lifecycle beyond one data sync", whole - one, 1, "ms")
    show(f"ledger: scan of {ENTRIES} entries", statistics.median(scans), 0.3, "s")


if __name__ == "__main__":
    main()
