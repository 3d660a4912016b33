"""The system calls below the ledger and every teardown: files, locks, clocks and chance.

Those rooms call `vfs.unlink` where others call `os.unlink`, so that a simulation of crashes can put
another machine below them (`substitute`); the word is SQLite's, which does the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

open_file = os.open
close = os.close
pread = os.pread
pwrite = os.pwrite
write = os.write
fstat = os.fstat
stat = os.stat
exists = os.path.exists
listdir = os.listdir
rename = os.rename
unlink = os.unlink
fsync = os.fsync
flock = fcntl.flock
if sys.platform == "darwin":
    file_control = fcntl.fcntl
else:
    fdatasync = os.fdatasync
    posix_fallocate = os.posix_fallocate
getpid = os.getpid
wall_clock = time.time
monotonic = time.monotonic
token_hex = secrets.token_hex
uniform = random.uniform


def boottime() -> float:
    """Seconds since boot, time asleep included; comparable between processes of one boot."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.clock_gettime(time.CLOCK_MONOTONIC)  # on macOS this one counts while asleep


def awake_time() -> float:
    """Seconds since boot, time asleep excluded; comparable between processes of one boot.

    It never runs faster than `boottime`. What a local server still has to do makes no progress
    while the machine sleeps, so settle times are measured on this clock.
    """
    return monotonic()


@functools.cache
def boot_id() -> str:
    """Identify the time since the last start of this machine's kernel."""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextlib.contextmanager
def substitute(calls: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Let every room of this process make these calls instead, for the length of the block.

    Raises:
        KeyError: there is no call of that name.
    """
    own = {name: globals()[name] for name in calls}
    globals().update(calls)
    try:
        yield
    finally:
        globals().update(own)
