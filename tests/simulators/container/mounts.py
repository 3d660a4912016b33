"""Parses what `-v`, `--mount` and `--tmpfs` say."""

from __future__ import annotations

import os

from simulators.container.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simulators.container.mac import Mac

_SAME = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}


def of_mount(text: str) -> dict[str, Any]:
    """`--mount type=bind,source=S,target=T,readonly`: of directories only.

    Raises:
        Failure: it says something else.
    """
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        key = _SAME.get(key, key)
        if key not in {"type", "source", "target", "readonly", "size", "mode"} or "=" in value:
            raise Failure("invalidArgument", f"unknown directive {key} when parsing mount {text}")
        fields[key] = value
    kind, target = fields.get("type", "bind"), fields.get("target", "")
    options = ["ro"] if "readonly" in fields else []  # `readonly=false` is read-only, too
    if not target:
        raise Failure("invalidArgument", f"mount {text} has no target")
    if kind == "tmpfs":
        sizes = [f"{key}={fields[key]}" for key in ("size", "mode") if key in fields]
        return {**tmpfs(target), "options": [*options, *sizes]}
    if kind not in {"bind", "virtiofs"}:
        raise Failure("unsupported", f"mount type {kind} is not simulated")
    source = _existing(fields.get("source", ""))
    if not os.path.isdir(source):
        raise Failure("invalidArgument", f"path '{source}' is not a directory")
    return _virtiofs(source, target, options)


def of_volume(mac: Mac, text: str) -> dict[str, Any]:
    """`-v SOURCE:TARGET[:OPTIONS]`.

    Raises:
        Failure: the source is not there, or it says something else.
    """
    source, *rest = text.split(":")
    if not rest or len(rest) > 2:
        raise Failure("invalidArgument", f"invalid volume format {text}")
    if "/" not in source and source not in {".", ".."}:
        raise Failure("unsupported", f"the volume {source} is not simulated")
    source = _existing(source)
    if not os.path.isdir(source):
        mac.violated(f"-v {text}: the whole parent directory is shared with the machine")
    return _virtiofs(source, rest[0], rest[1].split(",") if len(rest) == 2 else [])


def tmpfs(target: str) -> dict[str, Any]:
    """`--tmpfs PATH`, which takes no options."""
    return {"destination": target, "options": [], "source": "tmpfs", "type": {"tmpfs": {}}}


def _existing(source: str) -> str:
    path = os.path.abspath(source)
    if not os.path.exists(path):
        raise Failure("invalidArgument", f"path '{path}' does not exist")
    return path


def _virtiofs(source: str, target: str, options: list[str]) -> dict[str, Any]:
    return {
        "destination": target,
        "options": options,
        "source": source,
        "type": {"virtiofs": {}},
    }
