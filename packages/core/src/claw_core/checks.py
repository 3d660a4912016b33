"""Whether a class keeps to the contract of `hookspecs`, before anything of it is used."""

from __future__ import annotations

import difflib
import inspect
from typing import Final

from claw_core.hookspecs import Runtime
from claw_core.observing import HOOKS

SUPPORTED_API: Final = (1,)


def problems(value: object) -> list[str]:
    """Say everything that keeps a value from being the class of a runtime, each with its fix."""
    if not (isinstance(value, type) and issubclass(value, Runtime)):
        return [f"{value!r} is not a class derived from claw_core.hookspecs.Runtime"]
    if value.api not in SUPPORTED_API:
        return [f"it speaks version {value.api!r} of the contract, this core {SUPPORTED_API[-1]}"]
    found = [problem for hook in HOOKS for problem in _hook_problems(value, hook)]
    return [*found, *_typos(value), *_half_done(value)]


def _hook_problems(backend: type[Runtime], hook: str) -> list[str]:
    """Say what is wrong with one hook of a class, each with its fix."""
    specification = inspect.signature(getattr(Runtime, hook))
    line = f"async def {hook}({', '.join(specification.parameters)})"
    if hook in backend.__abstractmethods__:
        return [f"hook {hook} is missing: add `{line}`"]
    method = inspect.getattr_static(backend, hook)
    if not inspect.isfunction(method):
        return [f"hook {hook} is no plain method: write `{line}`"]
    if inspect.isasyncgenfunction(method):
        return [f"hook {hook} is an async generator: return a value instead, `{line}`"]
    if not inspect.iscoroutinefunction(method):
        return [f"hook {hook} is not async: write `{line}`"]
    wanted = list(specification.parameters)[1:]
    parameters = list(inspect.signature(method).parameters.values())[1:]
    names = [
        parameter.name
        for parameter in parameters
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
    ]
    if names == wanted and len(names) == len(parameters):
        return []
    missing = [name for name in wanted if name not in names]
    known = {*wanted} & {*names}
    extra = [str(one).split(":")[0] for one in parameters if one.name not in known]
    details = [f"lacks {', '.join(missing)}"] if missing else []
    details += [f"has {', '.join(extra)}, which the contract does not know"] if extra else []
    details = details or ["has its arguments in another order"]
    return [f"hook {hook} {' and '.join(details)}: write `{line}`"]


def _half_done(backend: type[Runtime]) -> list[str]:
    """Find hooks without which another one leaves behind what nobody can delete."""
    if not _implements(backend, "snapshot"):
        return []
    return [
        f"hook snapshot needs the hook {hook}: add it"
        for hook in ("list_snapshots", "delete_snapshot")
        if not _implements(backend, hook)
    ]


def _implements(backend: type[Runtime], hook: str) -> bool:
    own = inspect.getattr_static(backend, hook)
    return own is not inspect.getattr_static(Runtime, hook)


def _typos(backend: type[Runtime]) -> list[str]:
    """Find methods that were meant to be hooks: close to one that is not implemented."""
    absent = [hook for hook in HOOKS if not _implements(backend, hook)]
    methods = [
        name
        for name in dir(backend)
        if not name.startswith("_")
        and name not in HOOKS
        and inspect.iscoroutinefunction(inspect.getattr_static(backend, name))
    ]
    return [
        f"method {name} looks like the hook {hook}: rename it, or begin it with `_`"
        for name in methods
        for hook in difflib.get_close_matches(name, absent, 1, 0.8)
    ]
