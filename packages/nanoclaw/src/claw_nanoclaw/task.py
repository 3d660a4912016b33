"""The script of a scheduled task, which decides whether the agent is asked at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from claw_core.capture import Capture
from claw_core.errors import DeadlineExceeded, OutputLimitExceeded

if TYPE_CHECKING:
    from claw_core.model import Sink
    from claw_core.session import Session

TIMEOUT: Final = 30.0
"""Seconds that NanoClaw gives a script."""
LIMIT: Final = 1 << 20
"""Bytes that it may write."""
HEADER: Final = "[SCHEDULED TASK - this was sent automatically; nobody is there who asks]\n\n"


async def wakes(session: Session, script: str, stderr: Sink | None) -> tuple[bool, Any]:
    """Run a script, and return whether it wants the agent asked, and what it has found out.

    Its last line says so: `{"wakeAgent": true, "data": ...}`. Whatever else it does, it is a no.
    """
    said = Capture(LIMIT)
    try:
        ended = await session.run(
            ("bash", "-s"),
            stdin=script.encode(),
            stdout=said,
            stderr=stderr,
            timeout=TIMEOUT,
            recorded=False,
        )
    except (DeadlineExceeded, OutputLimitExceeded):
        return False, None
    lines = said.data.decode(errors="replace").strip().splitlines()
    if ended.code or not lines:
        return False, None
    try:
        value = json.loads(lines[-1])
    except (ValueError, RecursionError):
        return False, None
    if not isinstance(value, dict) or value.get("wakeAgent") is not True:
        return False, None
    return True, value.get("data")
