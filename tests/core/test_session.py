"""A session orders the phases, and tears down whatever happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Self

import pytest

from claw_core import events
from claw_core.capture import Capture
from claw_core.errors import (
    ClawError,
    ConfigError,
    DeadlineExceeded,
    LedgerUnavailable,
    OutputLimitExceeded,
    RuntimeFault,
    SpentInstance,
    TeardownFailed,
    Unsupported,
    WardenUnavailable,
)
from claw_core.hookspecs import Runtime
from claw_core.isolation import Isolation
from claw_core.model import (
    IO,
    Assessment,
    Command,
    Description,
    Exit,
    Instance,
    Refusal,
    Resize,
    Spec,
)
from claw_core.registry import Registry
from claw_core.relay import Relay
from claw_core.router import Router
from claw_core.session import Deadlines, Session
from claw_core.warden import Warden


class Model(Runtime):
    """Instances in memory; a test replaces what should happen in a hook."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.calls: list[str] = []
        self.existing: set[str] = set()
        self.then: dict[str, Callable[[], Awaitable[None]]] = {}
        self.assessment = Assessment(Isolation.SANDBOX, dies_with_owner=True)
        self.work: Callable[[Command, IO], Awaitable[Exit]] | None = None

    async def _enter(self, hook: str) -> None:
        self.calls.append(hook)
        if hook in self.then:
            await self.then[hook]()

    async def describe(self) -> Description:
        return Description(available=True)

    async def assess(self, spec: Spec) -> Assessment | Refusal:
        return self.assessment

    async def prepare(self, instance: Instance) -> None:
        self.existing.add(instance.name)
        await self._enter("prepare")

    async def start(self, instance: Instance) -> None:
        await self._enter("start")

    async def execute(self, instance: Instance, command: Command, io: IO) -> Exit:
        await self._enter("execute")
        return await self.work(command, io) if self.work else Exit(0)

    async def teardown(self, instance: Instance) -> None:
        await self._enter("teardown")
        self.existing.discard(instance.name)

    async def list_instances(self, install: str) -> frozenset[str]:
        return frozenset(self.existing)


class Opened:
    """A router whose registry knows just the model."""

    def __init__(self, model: Model, **options: Any) -> None:
        self.model = model
        self.seen: list[events.Event] = []
        self.options = options

    def session(self, **options: Any) -> AbstractAsyncContextManager[Session]:
        return self.router.session(runtime="model", **options)

    async def __aenter__(self) -> Self:
        self.manager = Router.open(listener=self.seen.append, **self.options)
        self.router = await self.manager.__aenter__()
        model, seen = self.model, self.seen

        class Only(Registry):
            def resolve(self, name: str, settings: Any = None) -> Relay:
                return Relay(name, model, (), seen.append)

            def names(self) -> tuple[str, ...]:
                return ("model",)

        self.router.planner.registry = Only()
        return self

    async def __aexit__(self, *error: Any) -> None:  # noqa: PYI036 - passed on as they come
        await self.manager.__aexit__(*error)


@pytest.fixture
def model() -> Model:
    return Model({})


def left(state: Path) -> list[str]:
    return [path.name for path in (state / "instances").iterdir()]


def test_the_phases_come_in_order_and_the_entry_is_gone(model: Model, state: Path) -> None:
    async def main() -> None:
        async with Opened(model) as opened, opened.session() as session:
            assert left(state) != []
            assert (await session.run(["x"])).code == 0
            assert model.existing == {session.name}

    asyncio.run(main())
    assert model.calls == ["prepare", "start", "execute", "teardown"]
    assert model.existing == set()
    assert left(state) == []


def test_a_terminal_is_passed_on_only_where_it_was_offered(model: Model) -> None:
    asked: list[Command] = []

    async def work(command: Command, io: IO) -> Exit:
        asked.append(command)
        return Exit(0)

    model.work = work

    async def main() -> None:
        async with Opened(model) as opened, opened.session() as session:
            with pytest.raises(Unsupported, match="without a terminal"):
                await session.run(["x"], terminal=Resize(24, 80))
            assert asked == []
        model.assessment = Assessment(Isolation.SANDBOX, dies_with_owner=True, terminal=True)
        async with Opened(model) as opened, opened.session() as session:
            await session.run(["x"], terminal=Resize(24, 80))
            await session.run(["y"])

    asyncio.run(main())
    assert [command.terminal for command in asked] == [Resize(24, 80), None]


@pytest.mark.parametrize("hook", ["prepare", "start", "execute"])
def test_a_failing_hook_is_torn_down_and_named(hook: str, model: Model, state: Path) -> None:
    async def fail() -> None:
        raise ValueError("odd")

    model.then[hook] = fail

    async def main() -> None:
        async with Opened(model) as opened, opened.session() as session:
            await session.run(["x"])

    with pytest.raises(RuntimeFault, match="odd") as caught:
        asyncio.run(main())
    assert caught.value.phase == hook
    assert model.calls[-1] == "teardown"
    assert model.existing == set()
    assert left(state) == []


@pytest.mark.parametrize("hook", ["prepare", "start", "execute", "teardown"])
@pytest.mark.parametrize("times", [1, 2, 7])
def test_any_number_of_cancellations_cannot_stop_a_teardown(
    hook: str, times: int, model: Model, state: Path
) -> None:
    entered = asyncio.Event()

    async def linger() -> None:
        entered.set()
        await asyncio.sleep(0.2 if hook == "teardown" else 60)

    async def slow() -> None:
        entered.set()
        await asyncio.sleep(0.1)

    model.then["teardown"] = slow
    model.then[hook] = linger

    async def use() -> None:
        async with Opened(model) as opened, opened.session() as session:
            await session.run(["x"])

    async def main() -> None:
        task = asyncio.create_task(use())
        for _ in range(times):
            await entered.wait()
            entered.clear()
            task.cancel()
            for _ in range(3):
                await asyncio.sleep(0)
                task.cancel()
            if task.done():
                break
            entered.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert model.calls.count("teardown") == 1
    assert model.existing == set()
    assert left(state) == []


def test_a_teardown_that_lies_is_quarantined_and_said(model: Model, state: Path) -> None:
    async def come_back() -> None:
        model.existing.add("unrelated")

    model.then["teardown"] = come_back

    class Liar(Model):
        async def teardown(self, instance: Instance) -> None:
            self.calls.append("teardown")  # claims success and deletes nothing

    liar = Liar({})

    async def main() -> None:
        async with (
            Opened(liar) as opened,
            opened.session(deadlines=Deadlines(teardown=0.5)) as session,
        ):
            await session.run(["x"])

    with pytest.raises(TeardownFailed, match="claw reap"):
        asyncio.run(main())
    assert len(left(state)) == 1
    assert liar.calls.count("teardown") > 1
    (line,) = (state / "runs.jsonl").read_text().splitlines()
    assert json.loads(line)["teardown"] == "quarantined"


def test_neither_failure_hides_the_other(model: Model) -> None:
    async def fail() -> None:
        raise RuntimeFault("cannot delete")

    model.then["teardown"] = fail

    async def main() -> None:
        async with (
            Opened(model) as opened,
            opened.session(deadlines=Deadlines(teardown=0.3)),
        ):
            raise KeyError("the body's own")

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(main())
    kinds = {type(error) for error in caught.value.exceptions}
    assert kinds == {KeyError, TeardownFailed}


def test_a_teardown_that_hangs_ends_at_its_deadline(model: Model, state: Path) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    model.then["teardown"] = hang

    async def main() -> None:
        async with (
            Opened(model) as opened,
            opened.session(deadlines=Deadlines(teardown=0.3)),
        ):
            pass

    with pytest.raises(TeardownFailed):
        asyncio.run(main())
    assert len(left(state)) == 1


def test_a_creation_cut_short_in_a_server_stays_in_limbo(model: Model, state: Path) -> None:
    model.assessment = Assessment(Isolation.CONTAINER, settle=30.0, dies_with_owner=True)

    async def fail() -> None:
        raise RuntimeFault("the connection broke")

    model.then["prepare"] = fail

    async def main() -> None:
        async with Opened(model) as opened:
            with pytest.raises(RuntimeFault, match="connection broke"):
                async with opened.session(deadlines=Deadlines(teardown=0.5)):
                    pass
            (entry,) = opened.router.ledger.scan()
            assert (entry.alive, entry.state) == (False, "limbo")

    asyncio.run(main())
    assert len(left(state)) == 1


def test_no_durable_intent_means_no_side_effect(
    model: Model, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with Opened(model) as opened:
            from claw_core import durable

            def full(descriptor: int) -> None:
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(durable, "sync_data", full)
            async with opened.session():
                pass

    with pytest.raises(LedgerUnavailable, match="No space left"):
        asyncio.run(main())
    assert model.calls == []
    assert left(state) == []


def test_without_a_warden_only_what_dies_with_its_owner_is_started(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*args: Any, **options: Any) -> Warden:
        raise WardenUnavailable("no process can be started")

    monkeypatch.setattr(Warden, "start", refuse)

    async def main() -> None:
        async with Opened(model) as opened, opened.session():
            pass

    asyncio.run(main())
    assert model.calls == ["prepare", "start", "teardown"]
    model.calls.clear()
    model.assessment = Assessment(Isolation.VM)
    with pytest.raises(WardenUnavailable):
        asyncio.run(main())
    assert model.calls == []


def test_a_deadline_stops_the_command_and_says_which(model: Model) -> None:
    async def work(command: Command, io: IO) -> Exit:
        while True:
            await io.stdout(b"x")
            await asyncio.sleep(0.02)

    model.work = work

    async def main() -> None:
        async with Opened(model) as opened, opened.session() as session:
            with pytest.raises(DeadlineExceeded, match=r"its timeout of 0\.2 s"):
                await session.run(["x"], timeout=0.2, idle_timeout=0.1)

            async def silent(command: Command, io: IO) -> Exit:
                await asyncio.sleep(60)
                return Exit(0)

            model.work = silent
            with pytest.raises(DeadlineExceeded, match=r"its idle timeout of 0\.1 s"):
                await session.run(["x"], timeout=60, idle_timeout=0.1)

    asyncio.run(main())


def test_a_slow_reader_is_no_idle_command(model: Model) -> None:
    async def work(command: Command, io: IO) -> Exit:
        await io.stdout(b"x")
        return Exit(0)

    model.work = work

    async def slow(data: bytes) -> None:
        await asyncio.sleep(0.3)

    async def main() -> None:
        async with Opened(model) as opened, opened.session() as session:
            assert (await session.run(["x"], stdout=slow, idle_timeout=0.1)).code == 0

    asyncio.run(main())


def test_a_spent_instance_takes_no_more_work(model: Model) -> None:
    async def spend() -> None:
        raise SpentInstance("cannot be stopped")

    model.then["execute"] = spend

    async def main() -> None:
        async with Opened(model) as opened, opened.session() as session:
            with pytest.raises(SpentInstance, match="cannot be stopped"):
                await session.run(["x"])
            with pytest.raises(SpentInstance, match="no more work"):
                await session.run(["x"])
            with pytest.raises(SpentInstance):
                await session.upload(Path(__file__), "/tmp/x")

    asyncio.run(main())
    assert model.existing == set()


def test_what_stops_a_command_counts_and_not_that_it_spends_the_instance(model: Model) -> None:
    async def spend() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise SpentInstance("cannot be stopped")

    model.then["execute"] = spend

    async def main() -> None:
        async with Opened(model) as opened:
            async with opened.session() as session:
                with pytest.raises(DeadlineExceeded):
                    await session.run(["x"], timeout=0.05)
                with pytest.raises(SpentInstance, match="no more work"):
                    await session.run(["x"])
            async with opened.session(deadlines=Deadlines(transfer=0.05)) as session:
                with pytest.raises(DeadlineExceeded):
                    await session.upload(Path(__file__), "/tmp/x")
                with pytest.raises(SpentInstance, match="no more work"):
                    await session.run(["x"])
            async with opened.session() as session:
                work = asyncio.create_task(session.run(["x"]))
                await asyncio.sleep(0.01)
                work.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await work
                with pytest.raises(SpentInstance, match="no more work"):
                    await session.run(["x"])

    asyncio.run(main())
    assert model.existing == set()


def test_the_callers_own_failing_stream_is_not_the_runtimes_fault(model: Model) -> None:
    async def work(command: Command, io: IO) -> Exit:
        if io.stdin is not None:
            async for _ in io.stdin:
                pass
        await io.stdout(b"x")
        return Exit(0)

    model.work = work

    async def broken(data: bytes) -> None:
        raise BrokenPipeError

    async def odd() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError("odd")

    async def main() -> None:
        async with Opened(model) as opened, opened.session() as session:
            with pytest.raises(BrokenPipeError):
                await session.run(["x"], stdout=broken)
            with pytest.raises(ValueError, match="odd"):
                await session.run(["x"], stdin=odd())
            with pytest.raises(OutputLimitExceeded):
                await session.run(["x"], stdout=Capture(limit=0))

    asyncio.run(main())


@pytest.mark.parametrize(
    "options",
    [
        {"argv": []},
        {"argv": ["a\0b"]},
        {"argv": ["a"], "env": {"A": "b\0"}},
    ],
)
def test_what_no_command_can_be_is_refused(options: dict[str, Any], model: Model) -> None:
    async def main() -> None:
        async with Opened(model) as opened, opened.session() as session:
            await session.run(**options)

    with pytest.raises(ConfigError):
        asyncio.run(main())
    assert "execute" not in model.calls
    assert model.existing == set()


@pytest.mark.parametrize("path", ["", "/", "..", "/a/..", "a/../b", "/a\0b"])
def test_paths_that_name_nothing_are_refused(path: str, model: Model, tmp_path: Path) -> None:
    async def main() -> None:
        async with Opened(model) as opened, opened.session() as session:
            with pytest.raises(ConfigError):
                await session.upload(tmp_path, path)
            with pytest.raises(ConfigError):
                await session.download(path, tmp_path / "x")

    asyncio.run(main())


def test_a_session_cannot_be_used_after_its_end(model: Model) -> None:
    async def main() -> None:
        async with Opened(model) as opened:
            async with opened.session() as session:
                pass
            with pytest.raises(ConfigError, match="not open"):
                await session.run(["x"])

    asyncio.run(main())
    assert "execute" not in model.calls


def test_a_full_disk_after_the_run_is_a_notice(model: Model, state: Path) -> None:
    async def main() -> None:
        (state / "runs.jsonl").mkdir()
        async with Opened(model) as opened:
            async with opened.session():
                pass
            assert any(isinstance(event, events.Notice) for event in opened.seen)

    asyncio.run(main())
    assert left(state) == []


def test_a_writable_mount_over_the_ledger_is_refused(model: Model, state: Path) -> None:
    from claw_core.model import Mount

    async def main() -> None:
        async with Opened(model) as opened:
            for source in (state, state.parent):
                mount = Mount(source, "/x", writable=True, authorised=True)
                with pytest.raises(ClawError, match="contains"):
                    async with opened.session(mounts=[mount]):
                        pass
            async with opened.session(mounts=[Mount(state, "/x", authorised=True)]):
                pass

    asyncio.run(main())
