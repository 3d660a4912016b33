"""One backend behind the relay, with observers of every nasty kind around it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from claw_core import events, observing, relay
from claw_core.discovery import Origin
from claw_core.errors import ClawError, Denied, PluginError, RuntimeFault, Unsupported
from claw_core.hookspecs import Observer, Phase, Runtime, hookimpl
from claw_core.host import Host
from claw_core.isolation import Isolation
from claw_core.model import (
    IO,
    Assessment,
    Audit,
    Command,
    Description,
    Exit,
    Instance,
    Refusal,
    Snapshot,
    SnapshotTarget,
    Spec,
)
from claw_core.relay import Relay


class Backend(Runtime):
    """Does nothing, and remembers what it was asked for."""

    def __init__(self, failing: dict[str, BaseException] | None = None, **returning: Any) -> None:
        super().__init__({"a": 1})
        self.calls: list[str] = []
        self.failing = failing or {}
        self.returning = returning

    async def _did(self, hook: str, result: Any) -> Any:
        self.calls.append(hook)
        await asyncio.sleep(0)
        if hook in self.failing:
            raise self.failing[hook]
        return self.returning.get(hook, result)

    async def describe(self) -> Description:
        return cast("Description", await self._did("describe", Description(available=True)))

    async def assess(self, spec: Spec) -> Assessment | Refusal:
        return cast("Refusal", await self._did("assess", Refusal("no", "none")))

    async def prepare(self, instance: Instance) -> None:
        await self._did("prepare", None)

    async def start(self, instance: Instance) -> None:
        await self._did("start", None)

    async def execute(self, instance: Instance, command: Command, io: IO) -> Exit:
        await io.stdout(b"out")
        return cast("Exit", await self._did("execute", Exit(0)))

    async def teardown(self, instance: Instance) -> None:
        await self._did("teardown", None)

    async def list_instances(self, install: str) -> frozenset[str]:
        return cast("frozenset[str]", await self._did("list_instances", frozenset({"n"})))


class Keeping(Backend):
    async def snapshot(self, instance: Instance, target: SnapshotTarget) -> str:
        return cast("str", await self._did("snapshot", "kept"))

    async def list_snapshots(self, install: str) -> frozenset[Snapshot]:
        listed = frozenset({Snapshot("kept", "claw-1-2")})
        return cast("frozenset[Snapshot]", await self._did("list_snapshots", listed))

    async def delete_snapshot(self, name: str) -> None:
        await self._did("delete_snapshot", None)

    async def search(self, instance: Instance, texts: tuple[str, ...]) -> frozenset[str]:
        return cast("frozenset[str]", await self._did("search", frozenset({"/etc"})))

    async def stop(self, instance: Instance) -> None:
        await self._did("stop", None)


def instance() -> Instance:
    lease = cast("Any", SimpleNamespace(name="claw-1-2", facts={}))
    return Instance("claw-1-2", Spec(), Host(lease, "mine", {"KEY": "hunter2"}))


async def drop(data: bytes) -> None:
    pass


def call(subject: Relay, hook: str) -> Coroutine[Any, Any, object]:
    one = instance()
    if hook == "execute":
        return subject.execute(one, Command(("true",)), IO(None, drop, drop))
    if hook == "upload":
        return subject.upload(one, nothing(), "/x")
    if hook == "download":
        return subject.download(one, "/x/y", drop)
    if hook == "snapshot":
        return subject.snapshot(one, Audit("l"))
    if hook == "search":
        return subject.search(one, ("hunter2",))
    if hook in {"list_snapshots", "delete_snapshot"}:
        return cast("Coroutine[Any, Any, object]", getattr(subject, hook)("1"))
    return cast("Coroutine[Any, Any, object]", getattr(subject, hook)(one))


async def nothing() -> AsyncIterator[bytes]:
    return
    yield


class Around(Observer):
    """An observer made of what it does on entry and on exit."""

    def __init__(self, name: str = "nasty", enter: Any = None, leave: Any = None) -> None:
        self.name = name
        self.enter = enter
        self.leave = leave
        self.seen: list[str] = []

    @hookimpl
    def around(self, phase: Phase) -> Any:
        return self._manager(phase)

    @asynccontextmanager
    async def _manager(self, phase: Phase) -> AsyncIterator[None]:
        self.seen.append(f"enter {phase.name}")
        await act(self.enter)
        try:
            yield
        finally:
            outcome = type(phase.error).__name__ if phase.error else phase.result
            self.seen.append(f"leave {phase.name} {outcome}")
            await act(self.leave)


async def act(what: Any) -> None:
    await asyncio.sleep(0)
    if what == "hang":
        await asyncio.Event().wait()
    elif what == "hang for ever":
        while True:
            try:
                await asyncio.sleep(0.2)
                return
            except asyncio.CancelledError:
                pass
    elif isinstance(what, BaseException):
        raise what


NASTY: list[Any] = [
    KeyError("early"),
    SystemExit(3),
    asyncio.CancelledError(),
    TimeoutError(),
    GeneratorExit(),
    BaseExceptionGroup("many", [ValueError("x"), SystemExit(1)]),
    StopAsyncIteration(),
]


def test_every_phase_reaches_the_backend_once_and_tells_the_listener() -> None:
    heard: list[events.Event] = []
    backend = Keeping()
    subject = Relay("mine", backend, listener=heard.append)

    async def main() -> None:
        for hook in hooks:
            await call(subject, hook)

    hooks = ["prepare", "start", "execute", "search", "snapshot", "stop", "teardown"]
    asyncio.run(main())
    assert backend.calls == hooks
    assert [type(event).__name__ for event in heard] == ["PhaseStarted", "PhaseEnded"] * 7
    assert heard[0] == events.PhaseStarted("mine", "claw-1-2", "prepare")
    assert all(event.error is None for event in heard if isinstance(event, events.PhaseEnded))


def test_the_questions_are_no_phases() -> None:
    observer = Around()
    subject = Relay("mine", Keeping(), [observer])
    assert asyncio.run(subject.describe()).available
    assert asyncio.run(subject.list_snapshots("1")) == {Snapshot("kept", "claw-1-2")}
    asyncio.run(subject.delete_snapshot("kept"))
    assert asyncio.run(subject.assess(Spec())) == Refusal("no", "none")
    assert asyncio.run(subject.list_instances("1")) == frozenset({"n"})
    assert observer.seen == []


class Silent(Backend):
    async def describe(self) -> Description:
        await asyncio.Event().wait()
        raise AssertionError

    async def assess(self, spec: Spec) -> Assessment:
        await asyncio.Event().wait()
        raise AssertionError


def test_a_backend_that_does_not_answer_is_named_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "ANSWER_TIMEOUT", 0.05)
    subject = Relay("mine", Silent(), origin=Origin("my-dist", "1.2"))
    description = asyncio.run(subject.describe())
    assert not description.available
    with pytest.raises(RuntimeFault) as caught:
        asyncio.run(subject.assess(Spec()))
    for hook, text in (("describe", description.reason), ("assess", caught.value.message)):
        assert text == f"hook {hook} of the plugin mine of my-dist 1.2 did not answer within 0.05 s"
    for remedy in (description.remedy, caught.value.remedy):
        assert "pip uninstall my-dist" in str(remedy)


def test_a_time_out_of_the_backends_own_is_not_taken_for_silence() -> None:
    subject = Relay("mine", Backend({"assess": TimeoutError("of its own")}))
    with pytest.raises(RuntimeFault, match="failed: TimeoutError: of its own"):
        asyncio.run(subject.assess(Spec()))


class Recording(Backend):
    async def execute(self, instance: Instance, command: Command, io: IO) -> Exit:
        self.calls.append(f"{command.argv[0]} in {command.workdir}")
        return Exit(0)


@pytest.mark.parametrize(("path", "workdir"), [("/new", "/"), ("new", None)])
def test_the_default_transfers_need_no_working_directory(path: str, workdir: str | None) -> None:
    """It may be the very directory that is being uploaded."""
    backend = Recording()
    subject = Relay("mine", backend)
    asyncio.run(subject.upload(instance(), nothing(), path))
    asyncio.run(subject.download(instance(), path, drop))
    assert backend.calls == [f"{tool} in {workdir}" for tool in ("mkdir", "tar", "tar")]


def test_upload_and_download_have_usable_defaults_and_snapshot_has_none() -> None:
    backend = Backend()
    subject = Relay("mine", backend)
    assert subject.supports("upload")
    assert subject.supports("download")
    assert subject.supports("execute")
    assert not subject.supports("snapshot")
    assert not subject.supports("_call")
    assert Relay("mine", Keeping()).supports("snapshot")
    observer = Around()
    asyncio.run(call(Relay("mine", backend, [observer]), "upload"))
    assert backend.calls == ["execute", "execute"]
    assert observer.seen == ["enter upload", "leave upload None"]
    with pytest.raises(Unsupported) as caught:
        asyncio.run(call(subject, "snapshot"))
    assert (caught.value.runtime, caught.value.phase) == ("mine", "snapshot")


def test_the_settings_of_the_backend_are_those_of_the_relay() -> None:
    assert Relay("mine", Backend()).settings == {"a": 1}
    assert Relay("mine", Backend(), settings={"b": 2}).settings == {"b": 2}


def test_an_exception_that_cannot_be_printed_is_a_fault_as_well() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    with pytest.raises(RuntimeFault, match="Mute"):
        asyncio.run(call(Relay("mine", Backend({"start": Mute()})), "start"))


def test_an_error_of_claw_gets_its_place() -> None:
    subject = Relay("mine", Backend({"start": ClawError("no boot")}))
    with pytest.raises(ClawError) as caught:
        asyncio.run(call(subject, "start"))
    error = caught.value
    assert (error.runtime, error.phase, error.instance) == ("mine", "start", "claw-1-2")
    assert type(error) is ClawError


@pytest.mark.parametrize("failure", [OSError("broken hunter2"), TimeoutError(), SystemExit(1)])
def test_any_other_exception_is_a_fault_of_the_plugin_without_secrets(
    failure: BaseException,
) -> None:
    subject = Relay("mine", Backend({"teardown": failure}))
    with pytest.raises(RuntimeFault, match=type(failure).__name__) as caught:
        asyncio.run(call(subject, "teardown"))
    assert "hunter2" not in str(caught.value)
    assert "plugin mine" in str(caught.value)
    assert caught.value.__cause__ is failure


@pytest.mark.parametrize(
    ("hook", "wrong"),
    [
        ("execute", None),
        ("assess", "fine"),
        ("list_instances", ["n"]),
        ("snapshot", 1),
        ("list_snapshots", frozenset({"kept"})),
        ("search", ["/etc"]),
        ("search", frozenset({b"/etc"})),
    ],
)
def test_a_wrong_result_names_the_hook(hook: str, wrong: object) -> None:
    subject = Relay("mine", Keeping(None, **{hook: wrong}))
    arguments = {
        "assess": lambda: subject.assess(Spec()),
        "list_instances": lambda: listed(subject),
    }
    with pytest.raises(RuntimeFault, match=f"hook {hook} of the plugin mine returned"):
        asyncio.run(arguments.get(hook, lambda: call(subject, hook))())


def test_a_listing_of_something_else_than_names_is_a_fault() -> None:
    with pytest.raises(RuntimeFault, match="list_instances"):
        asyncio.run(listed(Relay("mine", Backend(list_instances=frozenset({1})))))


def listed(subject: Relay) -> Coroutine[Any, Any, Any]:
    return subject.list_instances("1")


@pytest.mark.parametrize(
    "backend", [Backend({"describe": OSError("gone")}), Backend(describe="fine")]
)
def test_a_runtime_that_cannot_describe_itself_is_unavailable(backend: Backend) -> None:
    description = asyncio.run(Relay("mine", backend).describe())
    assert not description.available
    assert description.reason is not None
    assert "describe" in description.reason


@pytest.mark.parametrize("nasty", NASTY, ids=repr)
def test_a_failing_entry_denies_a_phase_in_the_observers_name(nasty: BaseException) -> None:
    backend = Backend()
    outer = Around("outer")
    subject = Relay("mine", backend, [outer, Around("guard", enter=nasty)])
    with pytest.raises(Denied, match="guard") as caught:
        asyncio.run(call(subject, "start"))
    assert (caught.value.runtime, caught.value.phase) == ("mine", "start")
    assert backend.calls == []
    assert outer.seen == ["enter start", "leave start Denied"]


def test_an_error_of_claw_on_entry_denies_as_it_is() -> None:
    failure = ClawError("the budget is spent")
    subject = Relay("mine", Backend(), [Around(enter=failure)])
    with pytest.raises(ClawError) as caught:
        asyncio.run(call(subject, "prepare"))
    assert caught.value is failure
    assert failure.phase == "prepare"


@pytest.mark.parametrize("moment", ["enter", "leave"])
@pytest.mark.parametrize("nasty", [*NASTY, ClawError("no")], ids=repr)
def test_no_failure_of_an_observer_prevents_or_fails_a_teardown(
    nasty: BaseException, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Backend()
    before, after = Around("before"), Around("after")
    subject = Relay("mine", backend, [before, Around("nasty", **{moment: nasty}), after])
    with caplog.at_level(logging.ERROR, "claw"):
        asyncio.run(call(subject, "teardown"))
    assert backend.calls == ["teardown"]
    assert before.seen == after.seen == ["enter teardown", "leave teardown None"]
    assert "observer nasty failed" in caplog.text


@pytest.mark.parametrize("how", ["hang", "hang for ever"])
@pytest.mark.parametrize("moment", ["enter", "leave"])
def test_an_observer_that_hangs_does_not_block_a_teardown(
    how: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "OBSERVER_DEADLINE", 0.05)
    backend = Backend()
    other = Around("other")
    subject = Relay("mine", backend, [other, Around(**{moment: how})])

    async def main() -> None:
        async with asyncio.timeout(0.18):
            await call(subject, "teardown")

    asyncio.run(main())
    assert backend.calls == ["teardown"]
    assert other.seen == ["enter teardown", "leave teardown None"]


@pytest.mark.parametrize("nasty", NASTY, ids=repr)
def test_a_failing_exit_is_logged_and_changes_nothing(
    nasty: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    good = Around("good")
    subject = Relay("mine", Backend(), [good, Around(leave=nasty), Around("inner")])
    assert asyncio.run(call(subject, "execute")) == Exit(0)
    assert good.seen == ["enter execute", "leave execute Exit(code=0, signal=None, reason=None)"]
    assert "observer nasty failed after execute" in caplog.text


def test_no_exit_replaces_or_hides_the_error_of_the_backend() -> None:
    class Swallow(Around):
        @asynccontextmanager
        async def _manager(self, phase: Phase) -> AsyncIterator[None]:
            try:
                yield
            except BaseException:  # noqa: BLE001
                phase.error = None

    failure = ClawError("the truth")
    for hook in ("execute", "teardown"):
        for nasty in (Swallow(), Around(leave=ValueError("a lie")), Around(leave=SystemExit(0))):
            subject = Relay("mine", Backend({hook: failure}), [nasty])
            with pytest.raises(ClawError) as caught:
                asyncio.run(call(subject, hook))
            assert caught.value is failure


def test_an_observer_cannot_change_the_result() -> None:
    class Forger(Around):
        @asynccontextmanager
        async def _manager(self, phase: Phase) -> AsyncIterator[None]:
            yield
            phase.result = Exit(7)

    assert asyncio.run(call(Relay("mine", Backend(), [Forger()]), "execute")) == Exit(0)


@pytest.mark.parametrize("made", [3, "text", object()])
def test_what_is_no_context_manager_denies(made: object) -> None:
    class Wrong:
        def around(self, phase: Phase) -> object:
            return made

    with pytest.raises(Denied, match="no async context manager"):
        asyncio.run(call(Relay("mine", Backend(), [Wrong()]), "start"))


def test_an_async_around_is_named_and_never_left_unawaited() -> None:
    class Wrong:
        async def around(self, phase: Phase) -> None:
            return

    with pytest.raises(Denied, match="coroutine"):
        asyncio.run(call(Relay("mine", Backend(), [Wrong()]), "start"))


def test_observers_may_stay_out_and_may_leave_arguments_away() -> None:
    class Out:
        def around(self) -> None:
            return None

    assert asyncio.run(call(Relay("mine", Backend(), [Out(), Out()]), "execute")) == Exit(0)


def test_an_observer_with_other_arguments_is_refused_by_name() -> None:
    class Odd:
        def around(self, stage: object) -> None:
            return None

    with pytest.raises(PluginError, match=r"Odd.*stage"):
        Relay("mine", Backend(), [Odd()])


def test_observers_nest_from_the_first_to_the_last() -> None:
    order: list[str] = []

    class Nested(Around):
        @asynccontextmanager
        async def _manager(self, phase: Phase) -> AsyncIterator[None]:
            order.append(f"+{self.name}")
            yield
            order.append(f"-{self.name}")

    asyncio.run(call(Relay("mine", Backend(), [Nested("a"), Nested("b")]), "start"))
    assert order == ["+a", "+b", "-b", "-a"]


def test_the_time_out_of_an_observer_does_not_reach_the_backend() -> None:
    class Impatient(Around):
        @asynccontextmanager
        async def _manager(self, phase: Phase) -> AsyncIterator[None]:
            async with asyncio.timeout(0.01):
                yield

    class Slow(Backend):
        async def teardown(self, instance: Instance) -> None:
            await asyncio.sleep(0.05)
            self.calls.append("done")

    backend = Slow()
    asyncio.run(call(Relay("mine", backend, [Impatient()]), "teardown"))
    assert backend.calls == ["done"]


@pytest.mark.parametrize("where", ["enter", "backend", "leave"])
def test_cancellation_passes_and_everybody_else_is_told(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "OBSERVER_DEADLINE", 0.3)

    class Stuck(Backend):
        async def start(self, instance: Instance) -> None:
            await asyncio.sleep(60 if where == "backend" else 0)

    outer = Around("outer")
    inner = Around("inner", **({where: "hang"} if where != "backend" else {}))
    heard: list[events.Event] = []
    subject = Relay("mine", Stuck(), [outer, inner], heard.append)

    async def main() -> None:
        task = asyncio.create_task(call(subject, "start"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert outer.seen[0] == "enter start"
    assert outer.seen[-1] == f"leave start {'None' if where == 'leave' else 'CancelledError'}"
    assert isinstance(heard[-1], events.PhaseEnded)
    assert heard[-1].error == "CancelledError"


def test_a_listener_that_fails_fails_nothing() -> None:
    def listener(event: events.Event) -> None:
        raise BrokenPipeError

    backend = Backend()
    asyncio.run(call(Relay("mine", backend, listener=listener), "teardown"))
    assert backend.calls == ["teardown"]


def test_a_backend_that_is_not_async_is_a_fault() -> None:
    class Sync(Backend):
        def start(self, instance: Instance) -> None:  # type: ignore[override]
            return None

    with pytest.raises(RuntimeFault, match="start"):
        asyncio.run(call(Relay("mine", Sync()), "start"))


def test_a_backend_with_other_arguments_is_refused() -> None:
    class Odd(Backend):
        async def start(self, machine: Instance) -> None:
            pass

    with pytest.raises(PluginError, match="machine"):
        Relay("mine", Odd())


@pytest.mark.parametrize(
    "answer",
    [Assessment("vm"), Assessment(Isolation.VM, network="host")],  # type: ignore[arg-type] # lies
    ids=["level", "network"],
)
def test_an_answer_that_core_cannot_rely_on_is_a_fault_of_the_plugin(answer: Assessment) -> None:
    class Odd(Backend):
        async def assess(self, spec: Spec) -> Assessment:
            return answer

    with pytest.raises(RuntimeFault, match="hook assess of the plugin odd returned"):
        asyncio.run(Relay("odd", Odd({})).assess(Spec()))
