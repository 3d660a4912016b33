"""What the tests of the simulated `tart` share."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from simulators.tart.world import Simulator


def ssh(
    world: Simulator, address: str, command: str, *options: str, key: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command as `admin`, let in by the password or by a key, whatever the host key is."""
    ask = world.directory / "ask"
    if not ask.exists():
        ask.write_text("#!/bin/sh\necho admin\n")
        ask.chmod(0o755)
    method = ("-i", str(key)) if key else ("-o", "PreferredAuthentications=password")
    return subprocess.run(
        [
            *("ssh", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"),
            *("-o", "UserKnownHostsFile=/dev/null", "-o", "NumberOfPasswordPrompts=1"),
            *(*method, *options, f"admin@{address}", command),
        ],
        env={**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
