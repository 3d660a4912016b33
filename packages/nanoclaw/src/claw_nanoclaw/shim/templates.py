"""The templates of Go that NanoClaw gives to `--format`, and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from claw_core.errors import ConfigError

_ACTION: Final = re.compile(r"\{\{\s*(.*?)\s*\}\}")
_PATH: Final = re.compile(r"(?:\.[A-Za-z]\w*)+")
_LABEL: Final = re.compile(r'\.Label\s+"([^"]*)"')
_INDEX: Final = re.compile(r'index\s+((?:\.[A-Za-z]\w*)+)\s+"([^"]*)"')
_JSON: Final = re.compile(r"json\s+(\.|(?:\.[A-Za-z]\w*)+)")


def render(template: str, value: Mapping[str, Any]) -> str:
    r"""Return a template filled in: `{{.A.B}}`, `{{.Label "x"}}`, `{{index .A "x"}}`, `{{json .}}`.

    Args:
        template: may have `\t` and `\n` in it, as on a command line.
        value: what the dot is; `Labels` of a listing are under `_labels`.

    Raises:
        ConfigError: it has anything else.
    """
    text = template.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n")
    return _ACTION.sub(lambda found: _action(found[1], value), text)


def _action(action: str, value: Mapping[str, Any]) -> str:
    if found := _LABEL.fullmatch(action):
        return str(value.get("_labels", {}).get(found[1], ""))
    if found := _INDEX.fullmatch(action):
        return str(_at(found[1], value, action).get(found[2], ""))
    if found := _JSON.fullmatch(action):
        shown = value if found[1] == "." else _at(found[1], value, action)
        if isinstance(shown, Mapping):
            shown = {name: one for name, one in shown.items() if not name.startswith("_")}
        return json.dumps(shown, separators=(",", ":"))
    if _PATH.fullmatch(action):
        shown = _at(action, value, action)
        return str(shown).lower() if isinstance(shown, bool) else str(shown)
    raise _unknown(action)


def _at(path: str, value: Any, action: str) -> Any:
    for name in path.split(".")[1:]:
        if not isinstance(value, Mapping) or name not in value:
            raise _unknown(action)
        value = value[name]
    return value


def _unknown(action: str) -> ConfigError:
    return ConfigError(
        f"the template {{{{{action}}}}} is not supported",
        remedy="see docs/how-to/nanoclaw-shim.md for what the shim understands",
    )
