"""Checks of processes: the host's own, which is left alone, and others, which see the same."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from claw_core.errors import ClawError
from claw_core.testing.contract import kills
from claw_core.testing.contract.heart import Heart
from claw_core.testing.contract.nursery import Nursery
from claw_core.testing.contract.stage import Stage, made
from claw_core.testing.contract.verdict import Broken, about

if TYPE_CHECKING:
    from claw_core.testing.contract.bench import Bench

_LIVES: Final = 4
"""How often something is done that must not add up."""


@about("runtime")
async def its_host_is_left_as_it_was(stage: Stage) -> None:
    """A life leaves its host's process as it was: settings, output, open files, tasks, children."""
    before = _settings()
    with _overheard() as heard:

        def look(moment: str) -> None:
            stage.say(moment)
            word, _, hook = moment.partition(" ")
            if word == "leave":
                after = _settings()
                if changed := [name for name, value in before.items() if after[name] != value]:
                    raise Broken(f"it changes its host's {', '.join(changed)}", hook=hook)
                if text := os.pread(heard, 200, 0):
                    raise Broken(f"it writes where commands' output goes: {text!r}", hook=hook)

        settings = stage.runtime.settings
        watched = attrs.evolve(stage, say=look, runtime=made(stage.case, settings, look))
        await _live(watched)  # what is made once and kept is made now
        counted = _counted()
        for _ in range(_LIVES):
            await _live(watched)
        growth = {name: count - counted[name] for name, count in _counted().items()}
    if more := [f"{count} {name}" for name, count in growth.items() if count >= _LIVES]:
        raise Broken(f"{_LIVES} lives have left {', '.join(more)}")


@about("list_instances")
def every_process_lists_the_same(bench: Bench) -> None:
    """Whoever asks, and wherever, gets the same listing; one that cannot be had is an error."""
    heart = Heart.make(bench.case, "heart")
    with Nursery() as nursery:
        another = attrs.evolve(bench, nursery=nursery)
        owner = bench.start(kills.own, pause="beating", heart=heart.directory.name)
        if not owner.until("beating", bench.case.check_timeout):
            bench.judge(owner, in_time=False)
        (name,) = owner.said("name")
        try:
            if name not in another.ask(look_from_entry, elsewhere=True).said("listed"):
                raise Broken("it runs, and a process in another environment does not list it")
            seen = another.ask(look_from_entry, blind=True)
            if name not in seen.said("listed") and not seen.said("failed"):
                raise Broken("it runs, and a process that finds no programs lists nothing")
        finally:
            owner.kill()
    bench.ask(kills.reap, seconds=bench.case.hook_timeout)


@about("list_instances")
async def look_from_entry(stage: Stage, *, blind: bool = False) -> None:
    """A look at the listing by the settings of the only entry; `blind`: no program is found."""
    (entry,) = stage.ledger.scan()
    assert entry.intent is not None
    if blind:
        os.environ["PATH"] = str(stage.case.directory / "no-programs")
    try:
        runtime = made(stage.case, entry.intent.settings, stage.say)
        await kills.look(attrs.evolve(stage, runtime=runtime))
    except (Broken, ClawError) as error:
        if not blind:
            raise
        stage.say(f"failed {error}")


async def _live(stage: Stage) -> None:
    async with stage.instance(secrets={"CANARY": "of the kit"}) as live:
        await live.run("echo said; echo more >&2")


@contextlib.contextmanager
def _overheard() -> Iterator[int]:
    """A file that gets what this process and its children write to their standard streams."""
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            yield file.fileno()
        finally:
            for number, one in enumerate(saved, 1):
                os.dup2(one, number)
                os.close(one)


def _settings() -> Mapping[str, object]:
    mask, here = os.umask(0o077), os.stat(".")  # which may have been removed
    os.umask(mask)
    return {
        "working directory": (here.st_dev, here.st_ino),
        "environment": dict(os.environ),
        "umask": mask,
        "signal handlers": [signal.getsignal(number) for number in signal.valid_signals()],
    }


def _counted() -> Mapping[str, int]:
    gc.collect()  # what only waits for that is no leak
    return {
        "open files": sum(1 for _ in Path("/dev/fd").iterdir()),
        "tasks": len(asyncio.all_tasks()),
        # Where there is no /proc, nobody is known to have any.
        "child processes": sum(_parent(entry) == os.getpid() for entry in Path("/proc").glob("*")),
    }


def _parent(entry: Path) -> int | None:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None  # no process, or one that has ended


CHECKS: Final = (its_host_is_left_as_it_was, every_process_lists_the_same)
