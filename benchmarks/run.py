"""All measurements, one after the other: `python benchmarks/run.py`."""

from __future__ import annotations

import docker_lifecycle
import ledger
import local_lifecycle
import routes
import shim
import start_up
import tart_lifecycle

if __name__ == "__main__":
    parts = (start_up, ledger, routes, shim, local_lifecycle, docker_lifecycle, tart_lifecycle)
    for part in parts:
        part.main()
