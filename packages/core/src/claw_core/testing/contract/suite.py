"""The kit as a class of tests: derive from it in the suite of a runtime."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from claw_core.testing.contract.bench import CHECKS, Bench
from claw_core.testing.contract.case import Case
from claw_core.testing.contract.nursery import Nursery
from claw_core.testing.contract.verdict import promise


class RuntimeContract:
    """Every promise of the contract, as a test each; `class TestMine(RuntimeContract)` is a suite.

    The runtime is found by its entry point and tried with real processes, which the kit ends
    whatever becomes of them: no test outlives `check_timeout` by more than some seconds.

    What may take a fixture to know is a fixture: override `settings`, `image`, `directory` or
    `remove_snapshot` by one of your own.

    Attributes:
        runtime: name of the runtime's entry point.
        preload: modules to load once and not for every process; they start no threads, and read
            nothing of the environment.
        mounts: whether it can show directories of the host; without, no heartbeat is seen.
        place: directory inside below which the kit mounts; None: at their own paths.
        disk: directory inside that a snapshot keeps, and commands can write to; None: their home.
        hook_timeout: seconds that one call of a hook has.
        check_timeout: seconds that one check, or one process of it, has.
        late: seconds after a teardown for which nothing may come to light.
        kills: owners that are killed at random moments; `CLAW_KILLS` in the environment overrides.
    """

    runtime: ClassVar[str]
    preload: ClassVar[tuple[str, ...]] = ()
    mounts: ClassVar[bool] = True
    place: ClassVar[str | None] = "/mnt/kit"
    disk: ClassVar[str | None] = None
    hook_timeout: ClassVar[float] = 30.0
    check_timeout: ClassVar[float] = 90.0
    late: ClassVar[float] = 0.5
    kills: ClassVar[int] = 4

    @pytest.fixture(scope="class")
    @classmethod
    def nursery(cls) -> Iterator[Nursery]:
        """The process that makes those of the checks."""
        with Nursery(cls.preload) as nursery:
            yield nursery

    @pytest.fixture
    def settings(self) -> Mapping[str, Any]:
        """The runtime's table of the configuration: JSON."""
        return {}

    @pytest.fixture
    def image(self) -> str | None:
        """What instances start from; it has `sh`, `tar` and the usual small tools."""
        return None

    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        """Where the ledger and the mounts of one check are: a directory that is empty."""
        return tmp_path

    @pytest.fixture
    def remove_snapshot(self) -> Callable[[str], None]:
        """Gets the name of every snapshot that the kit made."""
        return lambda _: None

    @pytest.fixture
    def bench(
        self,
        nursery: Nursery,
        directory: Path,
        settings: Mapping[str, Any],
        image: str | None,
        remove_snapshot: Callable[[str], None],
    ) -> Iterator[Bench]:
        """Where one check works."""
        case = Case(
            runtime=self.runtime,
            directory=directory,
            settings=settings,
            image=image,
            mounts=self.mounts,
            place=self.place,
            disk=self.disk,
            hook_timeout=self.hook_timeout,
            check_timeout=self.check_timeout,
            late=self.late,
            seed=int(os.environ.get("CLAW_SEED") or zlib.crc32(os.urandom(8))),
        )
        bench = Bench(case, int(os.environ.get("CLAW_KILLS") or self.kills), nursery)
        yield bench
        for name in bench.snapshots:
            remove_snapshot(name)

    def examine(self, bench: Bench, name: str) -> None:
        """Fail with the promise that was broken, the hook that broke it, and what was seen."""
        verdict = bench.examine(name)
        if verdict is not None:
            pytest.fail(f"{verdict}\nseed: CLAW_SEED={bench.case.seed}", pytrace=False)


def _test(name: str) -> Callable[[RuntimeContract, Bench], None]:
    def test(self: RuntimeContract, bench: Bench) -> None:
        self.examine(bench, name)

    test.__name__ = f"test_{name}"
    test.__qualname__ = f"RuntimeContract.test_{name}"
    test.__doc__ = promise(CHECKS[name])
    return test


for _name in CHECKS:
    setattr(RuntimeContract, f"test_{_name}", _test(_name))
