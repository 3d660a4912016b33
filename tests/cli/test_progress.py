"""The status line: on a terminal, while claw works, and gone before the command speaks."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

from cli.support import CLAW

PROGRAM = """
import asyncio
from claw_core import events
from claw_core.cli.progress import ProgressLine

async def main():
    line = ProgressLine(quiet=False, verbose=False)
    line(events.PhaseStarted("tart", "claw-x", "start"))
    await asyncio.sleep(0.6)
    line(events.Progress("tart", "claw-x", "waiting for ssh"))
    await asyncio.sleep(0.3)
    line(events.PhaseStarted("tart", "claw-x", "execute"))
    line.close()

asyncio.run(main())
"""


def on_a_terminal(*argv: str) -> bytes:
    """What a program writes to a terminal that is its standard error."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(argv, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:
                break
            if not chunk:
                break
            shown += chunk
        assert process.wait(30) == 0
    os.close(ours)
    return shown


def test_the_line_says_the_phase_and_for_how_long() -> None:
    shown = on_a_terminal(sys.executable, "-c", PROGRAM)
    assert b"claw: tart: start 0." in shown
    assert b"claw: tart: waiting for ssh" in shown
    assert shown.endswith(b"\r\x1b[K")


def test_a_quick_run_shows_no_line_at_all() -> None:
    assert on_a_terminal(*CLAW, "run", "-q", "--", "true") == b""
