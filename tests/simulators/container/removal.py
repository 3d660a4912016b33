"""Removes the files of containers."""

from __future__ import annotations

import contextlib
import os
import shutil


def remove(bundle: str) -> None:
    """Remove all that is kept of a container."""
    with contextlib.suppress(FileNotFoundError):
        # The kernel leaves it closed to all but root.
        os.chmod(os.path.join(bundle, "work", "work"), 0o700)
    shutil.rmtree(bundle, ignore_errors=True)
