"""JSON as Apple's Foundation prints it: `"key" : value`, any order of keys, `/` escaped."""

from __future__ import annotations

import json
import random
from typing import Any


def pretty(value: dict[str, Any] | list[dict[str, Any]]) -> str:
    """Render an object, or a list of objects, with two spaces of indentation."""
    if not value:
        return "{\n\n}" if isinstance(value, dict) else "[\n\n]"
    shuffled = _shuffled(value) if isinstance(value, dict) else [_shuffled(one) for one in value]
    text = json.dumps(shuffled, indent=2, separators=(",", " : "), ensure_ascii=False)
    return text.replace("/", "\\/")


def _shuffled(value: dict[str, Any]) -> dict[str, Any]:
    return dict(random.sample(list(value.items()), len(value)))
