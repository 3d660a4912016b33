"""What an engine can do wrong: each its own error, inside its deadline, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import claw_core
from claw_core.errors import (
    ClawError,
    DeadlineExceeded,
    RuntimeFault,
    SpentInstance,
    TeardownFailed,
)
from claw_core.host import Host
from claw_core.intent import Intent
from claw_core.ledger import Ledger
from claw_core.model import IO, Assessment, Command, Instance, Spec
from claw_core.session import Deadlines
from claw_runtime_docker import commands, fence
from claw_runtime_docker.place import Place
from claw_runtime_docker.runtime import DockerRuntime
from cli.support import eventually
from runtime_docker import engines
from runtime_docker.bad_engine import HANG, PING, answer, serving
from runtime_docker.engines import IMAGE, TestEngine
from runtime_docker.slow_engine import slow
from runtime_docker.support import configured, output, run, session, shell


@contextlib.contextmanager
def instance(state: Path, host: str) -> Iterator[tuple[DockerRuntime, Instance]]:
    """A runtime and an instance of it, without a session around them."""
    ledger = Ledger.open(state)
    runtime = DockerRuntime({"host": host, "image": IMAGE})
    intent = Intent.new(ledger.install, "docker", runtime.settings)
    with ledger.acquire(intent) as lease:
        yield runtime, Instance(intent.name, Spec(), Host(lease, "docker"))


def test_a_name_that_is_taken_is_told_and_given_free(engine: TestEngine, state: Path) -> None:
    async def work() -> None:
        with instance(state, engine.host) as (runtime, subject):
            body = {"Image": IMAGE, "HostConfig": {"NetworkMode": "none"}}
            path = f"/containers/create?name={subject.name}"
            assert engine.call("POST", path, None, body)[0] == 201
            with pytest.raises(RuntimeFault, match=r"refused POST /containers/create"):
                await runtime.prepare(subject)
            await runtime.teardown(subject)
            assert subject.name not in engine.names()

    run(work())


def test_teardown_of_what_never_was_holds_nothing(engine: TestEngine, state: Path) -> None:
    async def work() -> None:
        with instance(state, engine.host) as (runtime, subject):
            for _ in range(2):
                await runtime.teardown(subject)
                assert subject.name not in engine.names()

    run(work())


def test_many_may_tear_down_at_once(engine: TestEngine, state: Path) -> None:
    async def work() -> None:
        with instance(state, engine.host) as (runtime, subject):
            await runtime.prepare(subject)
            await runtime.start(subject)
            others = [DockerRuntime(runtime.settings) for _ in range(5)]
            await asyncio.gather(*(one.teardown(subject) for one in [runtime, *others]))
            assert subject.name not in engine.names()
            assert await runtime.list_instances(subject.name.split("-")[1]) == frozenset()

    run(work())


def test_a_creation_under_way_cannot_come_after_the_teardown(
    engine: TestEngine, state: Path
) -> None:
    """The request is sent, its client vanishes, and a fresh process tears down at once."""

    async def trial() -> None:
        with instance(state, engine.host) as (runtime, subject):
            creating = asyncio.create_task(runtime.prepare(subject))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("claw_runtime_docker.patience.GRACE", 0.0)
                await asyncio.sleep(0.02)
                creating.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await creating
            await DockerRuntime(runtime.settings).teardown(subject)
            await asyncio.sleep(0.15)
            assert subject.name not in engine.names()

    async def work() -> None:
        for _ in range(15):
            await trial()

    run(work())


async def cancelled_creation(runtime: DockerRuntime, subject: Instance) -> None:
    creating = asyncio.create_task(runtime.prepare(subject))
    await asyncio.sleep(0.2)
    creating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await creating


def test_a_name_is_held_against_a_creation_that_nobody_waits_for(
    engine: TestEngine, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claw_runtime_docker.patience.GRACE", 0.0)
    monkeypatch.setattr(fence, "GRACE", 2.0)

    async def work(socket: Path) -> str:
        async with slow(engine, socket, 1.0) as host:
            with instance(state, host) as (runtime, subject):
                await cancelled_creation(runtime, subject)
                await runtime.teardown(subject)
        return subject.name  # now the creation has begun, and was answered

    with tempfile.TemporaryDirectory() as folder:
        assert run(work(Path(folder) / "s")) not in engine.names()


def test_a_cancelled_creation_is_waited_for(engine: TestEngine, state: Path) -> None:
    async def work(socket: Path) -> None:
        async with slow(engine, socket, 0.5) as host:
            with instance(state, host) as (runtime, subject):
                await cancelled_creation(runtime, subject)
                assert subject.name in engine.names()
                await runtime.teardown(subject)
                assert subject.name not in engine.names()

    with tempfile.TemporaryDirectory() as folder:
        run(work(Path(folder) / "s"))


def test_a_teardown_whose_image_is_gone_takes_another(engine: TestEngine, state: Path) -> None:
    async def work() -> None:
        with instance(state, engine.host) as (runtime, subject):
            gone = DockerRuntime({**runtime.settings, "image": "claw-test-gone:1"})
            await gone.teardown(subject)
            assert subject.name not in engine.names()

    run(work())


def test_a_teardown_without_an_engine_fails(state: Path, tmp_path: Path) -> None:
    async def work() -> None:
        with instance(state, f"unix://{tmp_path}/none.sock") as (runtime, subject):
            with pytest.raises(ClawError, match="no engine answers"):
                await runtime.teardown(subject)
            with pytest.raises(ClawError, match="no engine answers"):
                await runtime.list_instances("7e577e57")

    run(work())


CREATED = answer(201, b'{"Id": "x"}')
LISTED = {"containers/json": answer(200, b"[]"), "info": answer(200, b'{"Runtimes": {}}')}


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"create": answer(500, b'{"message": "no space left on device"}')}, "no space left"),
        ({"create": b""}, "without an answer|no valid answer"),
        ({"create": HANG}, "prepare did not end within"),
        ({"create": answer(201, b"")}, None),
        ({"create": CREATED, "start": answer(400, b'{"message": "OCI failed"}')}, "OCI failed"),
        ({"create": CREATED, "attach": answer(200, b""), "start": answer(204, b"")}, "at once"),
        ({"create": CREATED, "attach": answer(200, b"\1\0\0\0\0\0\0\5no sh")}, "at once: no sh"),
        ({"create": CREATED, "attach": answer(200, b"\7\0\0\0\0\0\0\5no sh")}, "malformed"),
        ({"create": CREATED, "attach": HANG}, "start did not end within|did not answer"),
    ],
)
def test_what_fails_on_the_way_to_the_first_command_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, bytes], why: str | None
) -> None:
    monkeypatch.setattr("claw_runtime_docker.patience.GRACE", 0.2)
    found = answer(200, b'{"Id": "sha256:1"}')
    deleted = {"DELETE": answer(404, b'{"message": "No such container"}')}
    usual = {**LISTED, "images/": found, "start": answer(204, b""), **deleted}

    async def work() -> None:
        async with serving(tmp_path, {**usual, **answers}) as engine:
            table = {"host": str(engine.endpoint), "image": IMAGE}
            async with (
                claw_core.Router.open(config=configured(table)) as router,
                router.session(
                    runtime="docker", deadlines=Deadlines(prepare=1, start=1, teardown=1)
                ),
            ):
                raise AssertionError

    started = time.monotonic()
    with pytest.raises((ClawError, BaseExceptionGroup)) as caught:
        run(work())
    errors = caught.value.exceptions if isinstance(caught.value, BaseExceptionGroup) else ()
    said = " ".join(str(one) for one in (*errors, caught.value))
    if why is not None:
        assert re.search(why, said), said
    assert "docker" in said
    assert time.monotonic() - started < 20


@pytest.fixture(scope="module")
def mortal() -> Iterator[TestEngine]:
    """An engine that tests may freeze."""
    with engines.private() as engine:
        yield engine


def test_an_engine_that_hangs_while_a_command_is_stopped_makes_the_instance_spent(
    mortal: TestEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = functools.partial(Place, patience=0.5)
    monkeypatch.setattr("claw_runtime_docker.runtime.Place", impatient)
    monkeypatch.setattr(commands, "LAST_TIMEOUT", 0.5)

    async def work() -> None:
        async with session(mortal) as s:
            try:

                async def freeze(data: bytes) -> None:
                    await asyncio.to_thread(mortal.signal, signal.SIGSTOP)

                with pytest.raises((SpentInstance, DeadlineExceeded)):
                    await s.run(["sh", "-c", "echo x; sleep 600"], stdout=freeze, timeout=1)
            finally:
                mortal.signal(signal.SIGCONT)
            with pytest.raises(SpentInstance):
                await output(s, "true")

    run(work())


def test_a_full_disk_of_the_engine_is_told(state: Path) -> None:

    async def work(engine: TestEngine) -> None:
        settings = {"read_only": False, "user": "0"}
        async with session(engine, settings=settings) as s:
            ended, _, _ = await output(s, "dd", "if=/dev/zero", "of=/etc/big", "bs=1048576")
            assert ended.code == 1
            with pytest.raises(ClawError, match="no space left on device") as caught:
                async with session(engine):
                    raise AssertionError
            assert "free disk space" in str(caught.value)
        async with session(engine) as s:
            assert await shell(s, "echo room") == "room\n"

    with engines.private("data=24m") as engine:
        run(work(engine))
        # The engine itself takes back what it could not create, and a warden waits for that.
        assert eventually(lambda: not engine.names(), 30)
        assert eventually(lambda: not list((state / "instances").glob("*.jsonl")), 30)


def test_an_engine_whose_listing_is_none_proves_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path, {"containers/json": answer(200, b"{}")}) as engine:
            await DockerRuntime({"host": str(engine.endpoint)}).list_instances("7e577e57")

    with pytest.raises(RuntimeFault, match="gave no listing"):
        run(work())


def test_a_removal_that_does_not_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "PATIENCE", 0.2)
    said = json.dumps({"message": "removal of container x is already in progress"}).encode()

    async def work() -> None:
        async with serving(tmp_path, {"DELETE": answer(409, said)}) as engine:
            await fence.remove(engine, "x")

    with pytest.raises(TeardownFailed, match="being removed for too long"):
        run(work())


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (409, b"Conflict. The container name is already in use by container 1"),
        (500, b"the container name is already in use"),
        (500, b"name claw is in use: container already exists"),
    ],
)
def test_a_creation_that_does_not_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, said: bytes
) -> None:
    monkeypatch.setattr(fence, "PATIENCE", 0.2)
    answers = {
        "DELETE": answer(404, b'{"message": "No such container"}'),
        "create": answer(status, b'{"message": "%s"}' % said),
    }

    async def work() -> None:
        async with serving(tmp_path, answers) as engine:
            await fence.fence(engine, "claw-7e577e57-x", IMAGE)

    with pytest.raises(TeardownFailed, match="creating its container for too long"):
        run(work())


async def nothing(data: bytes) -> None:
    """Drop it."""


def test_a_stream_that_is_cut_or_nonsense_is_no_success(tmp_path: Path) -> None:
    """The end of a stream is believed only when the engine says that the command has ended."""

    async def ends(stream: bytes, inspected: bytes) -> None:
        answers = {
            "containers/c/exec": answer(201, b'{"Id": "e"}'),
            "exec/e/start": answer(200, stream),
            "exec/e/json": inspected,
            "kill": answer(204, b""),
        }
        async with serving(tmp_path, {"_ping": PING, **answers}, timeout=1) as engine:
            place = Place(engine, "c", "7", patience=0.3)
            await commands.Running(place, Command(("true",))).run(
                Spec(), IO(None, nothing, nothing)
            )

    gone = answer(404, b'{"message": "No such exec instance"}')
    running: Any = answer(200, b'{"Running": true, "ExitCode": null, "Pid": 7}')
    ended = answer(200, b'{"Running": false, "ExitCode": 0, "Pid": 7}')
    with pytest.raises(RuntimeFault, match="the container ended"):
        run(ends(b"", gone))
    with pytest.raises(RuntimeFault, match="could not start true"):
        run(ends(b"", ended))
    with pytest.raises(SpentInstance):
        run(ends(b"", running))
    with pytest.raises(SpentInstance):
        run(ends(b"\1\0\0\0\0\0\0\5ab", running))


@pytest.mark.parametrize(
    ("options", "noted"),
    [
        (["name=seccomp,profile=default"], False),
        (["name=seccomp,profile=unconfined"], True),
        ([], True),
        (None, True),
    ],
)
def test_an_engine_without_seccomp_is_noted(
    tmp_path: Path, options: list[str] | None, noted: bool
) -> None:
    info = json.dumps({"SecurityOptions": options, "MemoryLimit": True}).encode()
    answers = {"info": answer(200, info), "images/": answer(200, b"{}")}

    async def work() -> tuple[str, ...]:
        async with serving(tmp_path, answers) as engine:
            runtime = DockerRuntime({"host": str(engine.endpoint), "image": IMAGE})
            assessment = await runtime.assess(Spec())
            assert isinstance(assessment, Assessment)
            return assessment.notes

    assert any("seccomp" in note for note in run(work())) is noted
