"""Medians of interleaved measurements, so that a noisy machine is noisy for every side."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

Sample = Callable[[], float]

# Where no compiled modules are kept, every start would measure Python's compiler.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def wall(argv: Sequence[str], env: Mapping[str, str] | None = None) -> Sample:
    """Seconds from the start of a command to its end."""

    def sample() -> float:
        started = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=env)
        return time.perf_counter() - started

    return sample


def cpu(argv: Sequence[str], env: Mapping[str, str] | None = None) -> Sample:
    """Seconds of processor time of a command and what it waited for."""

    def sample() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=env)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return sample


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Seconds that something takes."""
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


def middle(values: list[float]) -> float:
    """The median."""
    return sorted(values)[len(values) // 2]


def medians(samples: Mapping[str, Sample], rounds: int) -> dict[str, float]:
    """Run every sample in turn, `rounds` times, and return the median of each."""
    taken: dict[str, list[float]] = {name: [] for name in samples}
    for _ in range(rounds):
        for name, sample in samples.items():
            taken[name].append(sample())
    return {name: statistics.median(values) for name, values in taken.items()}


def show(what: str, value: float, budget: float, unit: str = "x") -> None:
    """Print one line: what was measured, and whether it is inside its budget."""
    verdict = "ok" if value <= budget else "OVER BUDGET"
    print(f"{what:<58} {value:>9.3f} {unit:<3} budget {budget:g} {unit:<3} {verdict}")
