"""Where the embedded runtime cannot work, it says what can."""

from __future__ import annotations

import asyncio
import sys

import pytest

from claw_core.local.runtime import LocalRuntime
from claw_core.model import Refusal, Spec


def test_on_another_system_local_names_the_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    runtime = LocalRuntime({})
    description = asyncio.run(runtime.describe())
    assert not description.available
    refusal = asyncio.run(runtime.assess(Spec()))
    assert isinstance(refusal, Refusal)
    for remedy in (description.remedy, refusal.remedy):
        for name in ("claw-runtime-tart", "claw-runtime-apple", "claw-runtime-docker"):
            assert name in str(remedy)
