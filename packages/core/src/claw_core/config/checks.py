"""What makes no sense in settings that are each well-formed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from claw_core.config.settings import AUTO, Merged
from claw_core.known import KNOWN, canonical


def contradictions(merged: Merged) -> Iterator[str]:
    """A floor that the named runtime can never reach is a mistake on every machine."""
    settings = merged.settings
    known = KNOWN.get(canonical(settings.runtime or AUTO))
    floor = settings.min_isolation
    if known and floor and known.best < floor and not settings.fallback:
        yield (
            f"{merged.origin('min_isolation')}: the floor {floor.label!r} contradicts the runtime "
            f"{settings.runtime!r} ({merged.origin('runtime')}), which gives at most "
            f"{known.best.label!r}"
        )


def unknown_runtimes(merged: Merged, installed: Callable[[], Collection[str]]) -> Iterator[str]:
    """A name that is neither installed nor one of this project's is a slip."""
    settings = merged.settings
    chosen = settings.runtime
    named: dict[str, tuple[str, ...]] = {
        "runtime": () if chosen is None or chosen == AUTO else (chosen,),
        "prefer": settings.prefer or (),
        "fallback": settings.fallback or (),
    }
    for key, names in named.items():
        for name in names:
            if canonical(name) not in KNOWN and name not in installed():
                known = ", ".join(sorted({*installed(), *KNOWN}))
                yield f"{merged.origin(key)}: unknown runtime {name!r}; known are {known}"
    for name, table in settings.runtimes.items():
        if name not in KNOWN and name not in installed():
            origin = merged.origin(f"runtimes.{name}.{next(iter(table))}")
            known = ", ".join(sorted({*installed(), *KNOWN}))
            yield f"{origin}: unknown runtime {name!r}; known are {known}"
