"""From `prepare` to the verified end of `teardown`, whoever does which part and whoever dies."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import claw_core
from claw_core import failpoints
from claw_core.errors import ClawError, ConfigError
from claw_core.isolation import Extent, Isolation
from claw_core.local import cgroup, listing, probe
from claw_core.local.launch import Launched
from claw_core.local.runtime import LocalRuntime
from claw_core.model import Assessment, Exit, Mount, Refusal, Resources, Spec
from local import support
from local.support import instance, listed, run, runtime, session

HERE = Path(__file__).parent.parent
SOURCE = Path(claw_core.__file__).parents[1]


@pytest.fixture(params=support.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


OWNER = """
import asyncio, os, sys
from claw_core.model import Command, Resources, Spec
from local import support

async def main():
    engine, name, memory = sys.argv[1:4]
    backend = support.runtime(engine)
    spec = Spec(resources=Resources(memory=int(memory) or None))
    subject = support.instance(spec, name=name)
    print("begin", flush=True)
    await backend.prepare(subject)
    await backend.start(subject)
    print("started", flush=True)
    program = ("/usr/bin/python3", "-c", f"# {name}\\n{support.DAEMONS}")
    output = support.Output()
    async def echo(data):
        os.write(1, data)
    output.stdout = echo
    await backend.execute(subject, Command(program), output.io())

asyncio.run(main())
"""


def owner(engine: str, name: str, memory: int = 0, **env: str) -> subprocess.Popen[bytes]:
    """A process of its own that runs daemons in an instance until it is killed."""
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, engine, name, str(memory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{SOURCE}:{HERE}", **env},
        start_new_session=True,
    )


def until(process: subprocess.Popen[bytes], word: bytes) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == word:
            return
    pytest.fail(f"no {word!r}: {process.stderr and process.stderr.read().decode()}")


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_an_instance_is_listed_from_start_to_teardown(engine: str) -> None:
    async def main() -> None:
        backend, subject = runtime(engine), instance()
        assert not await listed(backend, subject)
        await backend.prepare(subject)
        await backend.start(subject)
        assert await listed(backend, subject)
        assert await listed(runtime(engine), subject)
        assert subject.name not in await backend.list_instances("00000000")
        await backend.teardown(subject)
        assert not await listed(backend, subject)
        assert support.marked(subject.name) == []
        await backend.teardown(subject)

    run(main())


def test_teardown_of_what_never_was_returns_at_once(engine: str) -> None:
    async def main() -> None:
        started = time.monotonic()
        await runtime(engine).teardown(instance())
        assert time.monotonic() - started < 1

    run(main())


@pytest.mark.parametrize("memory", [0, 1 << 29])
def test_a_fresh_process_tears_down_what_lives_by_its_name_alone(engine: str, memory: int) -> None:
    subject = instance()
    with owner(engine, subject.name, memory) as process:
        try:
            until(process, b"ready")
            assert support.eventually(lambda: len(support.marked(subject.name)) > 20)

            async def main() -> None:
                backend = runtime(engine)
                assert await listed(backend, subject)
                await backend.teardown(subject)
                assert not await listed(backend, subject)

            run(main())
            assert support.marked(subject.name) in ([], [process.pid])
        finally:
            end(process)


def test_sigkill_of_the_owner_at_any_early_moment_leaves_nothing(engine: str) -> None:
    subjects = []
    random.seed(7)
    for moment in [random.uniform(0, 0.05) for _ in range(6)] + [0.15, 0.3]:
        subject = instance()
        with owner(engine, subject.name) as process:
            until(process, b"begin")
            time.sleep(moment)
            end(process)
        assert support.eventually(lambda: support.marked(subject.name) == [], 3), moment  # noqa: B023
        subjects.append(subject)

    async def main() -> None:
        backend = runtime(engine)
        for subject in subjects:
            await backend.teardown(subject)  # of guard a directory may be left
            assert not await listed(backend, subject)

    run(main())


def test_sigkill_of_the_owner_ends_twenty_daemons(engine: str) -> None:
    subject = instance()
    with owner(engine, subject.name) as process:
        until(process, b"ready")
        assert support.eventually(lambda: len(support.marked(subject.name)) > 20)
        end(process)
    assert support.eventually(lambda: support.marked(subject.name) == [], 3)
    run(runtime(engine).teardown(subject))


POINTS = (
    "local.cgroup-created", "local.prepared", "local.pre-spawn", "local.post-spawn",
    "local.post-ready",
)  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at_any_point_leaves_only_what_a_teardown_removes(engine: str, point: str) -> None:
    if point == "local.cgroup-created" and "memory" not in cgroup.places():
        pytest.skip("there are no control groups here")
    assert point in failpoints.POINTS
    subject = instance()
    with owner(engine, subject.name, 1 << 29, CLAW_FAILPOINT=f"{point}=kill") as process:
        process.communicate(timeout=20)
        assert process.returncode == -signal.SIGKILL

    async def main() -> None:
        backend = runtime(engine)
        await backend.teardown(subject)
        assert not await listed(backend, subject)

    run(main())
    assert support.marked(subject.name) == []
    assert not os.path.lexists(f"/tmp/{subject.name}")
    assert subject.name not in cgroup.listed(subject.name.split("-")[1])


def test_a_teardown_that_was_cut_short_can_be_repeated(engine: str) -> None:
    async def main() -> None:
        backend, subject = runtime(engine), instance()
        await backend.prepare(subject)
        await backend.start(subject)
        work = asyncio.create_task(backend.teardown(subject))
        await asyncio.sleep(0)
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        await backend.teardown(subject)
        assert not await listed(backend, subject)

    run(main())


def test_a_start_that_was_cut_short_leaves_nothing_running(engine: str) -> None:
    async def main() -> None:
        backend = runtime(engine)
        await backend.describe()  # the probe is not what is cut short
        for pause in (0.0, 0.005, 0.02, 0.04):
            subject = instance()
            await backend.prepare(subject)
            work = asyncio.create_task(backend.start(subject))
            await asyncio.sleep(pause)
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
            await backend.teardown(subject)
            assert support.marked(subject.name) == []

    run(main())


def test_the_op_lock_is_held_until_the_instance_is_up_and_not_longer(
    engine: str, tmp_path: Path
) -> None:
    def free() -> bool:
        with (tmp_path / "lock").open("a") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    async def main() -> None:
        backend = runtime(engine)
        with (tmp_path / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            subject = instance(inherited=(lock.fileno(),))
            await backend.prepare(subject)
            await backend.start(subject)
        assert support.eventually(free, 1)
        await backend.teardown(subject)

    run(main())


def test_processes_of_other_names_and_other_users_are_let_alone() -> None:
    mine, other = instance(), instance()
    with subprocess.Popen(["sleep", "600"], env={"CLAW_INSTANCE": other.name}) as bystander:
        try:
            assert listing.processes(other.name.split("-")[1]).get(other.name) == [bystander.pid]
            listing.kill(mine.name)
            time.sleep(0.05)
            assert bystander.poll() is None
        finally:
            bystander.kill()
    if os.geteuid() == 0:
        with subprocess.Popen(
            ["sleep", "600"], env={"CLAW_INSTANCE": other.name}, user=1000, group=1000
        ) as liar:
            try:
                assert other.name not in listing.processes(other.name.split("-")[1])
            finally:
                liar.kill()


def test_bounds_hold_for_the_instance_as_a_whole() -> None:
    if not {"memory", "pids", "cpu"} <= set(cgroup.places()):
        pytest.skip("there are no control groups here")
    spec = Spec(resources=Resources(cpus=0.5, memory=256 << 20, processes=50))

    async def main() -> None:
        assessment = await runtime().assess(spec)
        assert isinstance(assessment, Assessment)
        assert assessment.axes.limits is Extent.FULL
        async with session(spec=spec) as there:
            for path in set(cgroup.places().values()):
                held = (path / there.instance.name / "cgroup.procs").read_text().split()
                assert len(held) == 2
            several = "x = bytearray(100 << 20); import time; time.sleep(1.5)"
            ends = await asyncio.gather(*(there.python(several) for _ in range(4)))
            assert any(ended.signal == signal.SIGKILL for ended, _ in ends)
            assert await there.run("echo", "alive") == (Exit(0), "alive\n")
            program = (
                "import os, time\n"
                "made = 0\n"
                "try:\n"
                "    while made < 100:\n"
                "        if os.fork() == 0: time.sleep(60); os._exit(0)\n"
                "        made += 1\n"
                "except OSError: pass\n"
                "print(made)\n"
            )
            _, text = await there.python(program)
            assert 40 <= int(text) < 50

    run(main())


def test_what_is_promised_is_what_is_given(engine: str) -> None:
    async def main() -> None:
        backend = runtime(engine)
        description = await backend.describe()
        assert description.available
        assessment = await backend.assess(Spec())
        assert isinstance(assessment, Assessment)
        level = {"namespaces": Isolation.SANDBOX, "guard": Isolation.GUARD}[engine]
        assert assessment.isolation is description.isolation is level
        assert assessment.network == "none"
        assert assessment.dies_with_owner is (engine == "namespaces")
        bounded = await backend.assess(Spec(resources=Resources(processes=64)))
        assert isinstance(bounded, Assessment)
        assert not bounded.dies_with_owner or not cgroup.places()
        assert assessment.settle == 0
        assert assessment.axes.net is Extent.FULL
        shared = await backend.assess(Spec(network="default"))
        assert isinstance(shared, Assessment)
        assert (shared.network, shared.axes.net) == ("default", Extent.NONE)
        assert isinstance(await backend.assess(Spec(image="debian")), Refusal)
        elsewhere = Mount(Path("/usr/share"), "/elsewhere")
        refused = await backend.assess(Spec(mounts=(elsewhere,)))
        assert isinstance(refused, Refusal) is (engine == "guard")

    run(main())


def test_in_guard_a_relocatable_mount_stays_where_it_is_and_the_workdir_follows() -> None:
    spec = Spec(
        mounts=(Mount(Path("/usr/share"), "/workspace", relocatable=True),),
        workdir="/workspace/doc",
    )

    async def main() -> None:
        async with session("guard", spec) as there:
            assert await there.run("pwd") == (Exit(0), "/usr/share/doc\n")
            ended = await there.run("pwd", workdir="/workspace")
            assert ended == (Exit(0), "/usr/share\n")

    run(main())


@pytest.mark.parametrize("settings", [{"engine": "bwrap"}, {"engin": "auto"}, {"engine": 1}])
def test_unknown_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        LocalRuntime(settings)


WITHOUT_NAMESPACES = """
import asyncio, json
from claw_core.local.runtime import LocalRuntime
from claw_core.model import Spec
from local import support

async def main():
    backend = LocalRuntime({})
    found = await backend.describe()
    assessment = await backend.assess(Spec())
    subject = support.instance()
    await backend.prepare(subject)
    await backend.start(subject)
    output = support.Output()
    ended, text = await support.Session(backend, subject).run("echo", "hello", output=output)
    await backend.teardown(subject)
    strict = await LocalRuntime({"engine": "namespaces"}).describe()
    print(json.dumps({
        "level": assessment.isolation.label, "notes": assessment.notes, "text": text,
        "reason": found.reason, "remedy": found.remedy, "strict": strict.available,
    }))

asyncio.run(main())
"""


def test_where_user_namespaces_are_forbidden_guard_is_used_and_says_why(tmp_path: Path) -> None:
    # A user namespace of one user, in which no further one may be made.
    program = f'echo 0 > /proc/sys/user/max_user_namespaces\nexec {sys.executable} -c "$PROGRAM"\n'
    made = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", program],
        env={
            **os.environ,
            "PROGRAM": WITHOUT_NAMESPACES,
            "PYTHONPATH": f"{SOURCE}:{HERE}",
            "XDG_CACHE_HOME": str(tmp_path),
        },
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0, made.stderr.decode()
    found = json.loads(made.stdout)
    assert (found["level"], found["text"], found["strict"]) == ("guard", "hello\n", False)
    assert "namespaces" in found["notes"][0]
    assert "max_user_namespaces" in found["remedy"]
    assert "max_user_namespaces" in found["notes"][0]


def test_an_engine_that_works_is_tried_once_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    started: list[str] = []
    start = Launched.start.__func__  # type: ignore[attr-defined] # the function of a classmethod

    async def counted(cls: type[Launched], setup: object, *args: object) -> Launched:
        started.append("once more")
        launched: Launched = await start(cls, setup, *args)
        return launched

    monkeypatch.setattr(Launched, "start", classmethod(counted))

    async def main() -> None:
        assert await probe.probe("namespaces") is None
        assert await probe.probe("namespaces") is None
        assert started == ["once more"]
        probe.forget()
        assert await probe.probe("namespaces") is None
        assert len(started) == 2

    run(main())


def test_a_cache_that_cannot_be_written_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")

    async def main() -> None:
        assert await probe.probe("namespaces") is None

    run(main())


def test_an_instance_whose_mount_has_gone_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    spec = support.mounts(Mount(folder, "/mnt/p"))

    async def main() -> None:
        backend, subject = runtime(), instance(spec)
        await backend.prepare(subject)
        folder.rmdir()
        with pytest.raises(ClawError) as caught:
            await backend.start(subject)
        assert str(folder) in str(caught.value)
        await backend.teardown(subject)

    run(main())
