"""How instances end: asked for, cut short, from another process, against their will."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from claw_core import Capture, Config, Router, Settings
from claw_core.errors import SpentInstance
from claw_core.host import Host
from claw_core.local import cgroup, listing, scratch
from claw_core.local.runtime import LocalRuntime
from claw_core.model import Instance, Resources, Signal, Spec
from cli.support import eventually
from local.callers import Caller

DAEMONS = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.execve("/bin/sleep", [sys.argv[1], "600"], {})
print("ready", flush=True)
time.sleep(600)
"""
"""Twenty daemons without the marker in their environment, under a name of the test's choice."""


def named(name: str) -> list[int]:
    """Living processes whose first argument is a name."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "cmdline").read_bytes().startswith(name.encode() + b"\0"):
                    found.append(int(entry.name))
    return found


def mark() -> str:
    return f"claw-daemon-{os.getpid()}-{time.monotonic_ns()}"


def router(engine: str) -> contextlib.AbstractAsyncContextManager[Router]:
    return Router.open(config=Config.of(Settings(runtimes={"local": {"engine": engine}})))


def install_of(name: str) -> str:
    return name.split("-")[1]


def gone(name: str) -> bool:
    """Whether nothing of an instance is left, as far as anybody can see."""
    return (
        name not in listing.processes(install_of(name))
        and name not in cgroup.listed(install_of(name))
        and not os.path.lexists(scratch.path(name))
    )


def test_cancelling_a_command_ends_its_daemons_and_not_its_instance(engine: str) -> None:
    name = mark()

    async def main() -> None:
        ready = asyncio.Event()

        async def hear(data: bytes) -> None:
            ready.set()

        async with router(engine) as it, it.session(runtime="local") as session:
            command = asyncio.create_task(
                session.run(["/usr/bin/python3", "-c", DAEMONS, name], stdout=hear)
            )
            await ready.wait()
            assert await asyncio.to_thread(eventually, lambda: len(named(name)) == 20)
            command.cancel()
            with pytest.raises(asyncio.CancelledError):
                await command
            assert named(name) == []
            assert (await session.run(["true"])).code == 0

    asyncio.run(main())


def test_daemons_left_behind_end_with_the_session(engine: str) -> None:
    name = mark()

    async def main() -> str:
        program = DAEMONS.replace("time.sleep(600)\n", "").replace("os._exit(0)\n\n", "")
        async with router(engine) as it, it.session(runtime="local") as session:
            await session.run(["/usr/bin/python3", "-c", program, name])
            assert await asyncio.to_thread(eventually, lambda: len(named(name)) == 20)
        return session.name

    instance = asyncio.run(main())
    assert named(name) == []
    assert gone(instance)


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.05, 0.15])
def test_sigkill_of_a_young_owner_ends_everything(
    engine: str, delay: float, tmp_path: Path
) -> None:
    name = mark()
    driver = (
        "import asyncio, sys\nfrom claw_core import Config, Router, Settings\n"
        "async def hear(data): pass\n"
        "async def main():\n"
        f"  settings = Settings(runtimes={{'local': {{'engine': {engine!r}}}}})\n"
        "  async with Router.open(config=Config.of(settings)) as router:\n"
        "    async with router.session(runtime='local') as session:\n"
        "      print(session.name, flush=True)\n"
        "      await session.run(['/usr/bin/python3', '-c', *sys.argv[1:]])\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", driver, DAEMONS, name],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as owner:
        assert owner.stdout is not None
        instance = owner.stdout.readline().decode().strip()
        time.sleep(delay)
        owner.kill()
    assert eventually(lambda: instance not in listing.processes(install_of(instance)))
    assert named(name) == []
    # What has no process is the warden's work.
    assert eventually(lambda: gone(instance), 20)


def test_a_command_that_kills_its_supervisor_spends_its_instance() -> None:
    name = mark()
    program = DAEMONS.replace("time.sleep(600)\n", "os.kill(os.getppid(), 9)\ntime.sleep(600)\n")

    async def main() -> str:
        async with router("namespaces") as it, it.session(runtime="local") as session:
            with pytest.raises(SpentInstance):
                await session.run(["/usr/bin/python3", "-c", program, name])
            with pytest.raises(SpentInstance):
                await session.run(["true"])
        return session.name

    instance = asyncio.run(main())
    assert named(name) == []
    assert gone(instance)


def test_a_command_cannot_kill_its_supervisor_in_the_guard_engine(caller: Caller) -> None:
    lines = [f"os.kill({pid}, 9)" for pid in ("os.getppid()", "-os.getppid()", "-1")]
    lines.append("os.kill(int(open(f'/proc/{os.getppid()}/stat').read().split()[3]), 9)")
    lines.append("call(200, os.getppid(), 9)")
    answers = caller.tried("guard", *lines)
    assert all("REFUSED" in answer for answer in answers), answers


def a_host() -> Host:
    """What a teardown gets in a process that knows nothing but the name."""
    return cast(Host, SimpleNamespace(facts={}, progress=lambda text: None, inherited=tuple))


def test_a_fresh_process_ends_a_living_instance_by_its_name(engine: str) -> None:
    name = mark()

    async def main() -> str:
        async with (
            router(engine) as it,
            it.session(runtime="local", resources=Resources(memory=256 << 20)) as session,
        ):
            program = DAEMONS.replace('print("ready", flush=True)\ntime.sleep(600)\n', "")
            await session.run(["/usr/bin/python3", "-c", program, name])
            assert await asyncio.to_thread(eventually, lambda: len(named(name)) == 20)
            other = LocalRuntime({})
            assert session.name in await other.list_instances(install_of(session.name))
            instance = Instance(session.name, Spec(), a_host())
            await other.teardown(instance)
            assert named(name) == []
            assert gone(session.name)
            await other.teardown(instance)
            assert session.name not in await other.list_instances(install_of(session.name))
        return session.name

    assert gone(asyncio.run(main()))


def test_tearing_down_what_never_was_is_fine() -> None:
    name = "claw-0123abcd-0123456789ab"
    asyncio.run(LocalRuntime({}).teardown(Instance(name, Spec(), a_host())))


def test_control_groups_are_there_while_they_bound_and_gone_afterwards(engine: str) -> None:
    async def main() -> str:
        resources = Resources(memory=128 << 20, processes=32, cpus=0.5)
        async with (
            router(engine) as it,
            it.session(runtime="local", resources=resources) as session,
        ):
            assert session.name in cgroup.listed(install_of(session.name))
            assert str(session.route.assessment.axes.limits) == "full"
            bomb = "x = []\nwhile True: x.append(bytes(1 << 20))"
            ended = await session.run(["/usr/bin/python3", "-c", bomb])
            assert ended.signal == signal.SIGKILL
        return session.name

    assert gone(asyncio.run(main()))


def test_only_processors_are_not_all_limits() -> None:
    async def main() -> None:
        resources = Resources(cpus=0.5)
        async with (
            router("namespaces") as it,
            it.session(runtime="local", resources=resources) as session,
        ):
            assert str(session.route.assessment.axes.limits) == "partial"
            assert session.name in cgroup.listed(install_of(session.name))

    asyncio.run(main())


def test_one_process_is_enough_to_run_one(engine: str) -> None:
    async def main() -> None:
        async with router(engine) as it:
            for memory in (None, 128 << 20):
                resources = Resources(processes=1, memory=memory)
                async with it.session(runtime="local", resources=resources) as session:
                    assert (await session.run(["true"])).code == 0

    asyncio.run(main())


LITTER = """
import os
os.chdir(os.environ["HOME"])
os.makedirs("shut/inner/more")
open("shut/inner/more/file", "w").close()
os.symlink("/etc", "shut/link")
for path in ("shut/inner/more", "shut/inner", "shut"):
    os.chmod(path, 0)
for _ in range(1200):
    os.mkdir("deep")
    os.chdir("deep")
os.chmod(os.environ["HOME"], 0)
"""


def test_no_litter_survives_in_the_scratch_directory(caller: Caller) -> None:
    result = caller.attempt("guard", LITTER + "\nprint(os.environ['HOME'])")
    ((code, said),) = result["answers"]
    assert code == 0, said
    assert said.startswith("/tmp/claw-")
    assert not os.path.lexists(said.strip())
    assert Path("/etc").is_dir()


def test_a_process_of_somebody_else_with_our_arguments_is_not_ours(user: Caller) -> None:
    name = "claw-0123abcd-aaaaaaaaaaaa"
    script = user.write("launcher.py", "import time\nprint(flush=True)\ntime.sleep(60)\n")
    forged = ("/usr/bin/python3", "-I", "-S", str(script), name, "3", "4")
    with user.popen(*forged, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            assert name not in listing.processes("0123abcd")
            listing.kill(name)
            asyncio.run(LocalRuntime({}).teardown(Instance(name, Spec(), a_host())))
            assert process.poll() is None
        finally:
            process.kill()


def test_the_marker_cannot_be_taken_away_by_the_environment(caller: Caller, engine: str) -> None:
    (answer,) = caller.tried(
        engine, "os.environ['CLAW_INSTANCE']", env={"CLAW_INSTANCE": "mine", "X": "1"}
    )
    assert answer.startswith("'claw-")


def test_twenty_instances_at_once(engine: str) -> None:
    async def one(it: Router, number: int) -> bytes:
        result = await it.run(["sh", "-c", f"echo {number}"], runtime="local")
        assert result.exit.code == 0
        return result.stdout

    async def main() -> list[bytes]:
        async with router(engine) as it:
            return await asyncio.gather(*(one(it, number) for number in range(20)))

    assert asyncio.run(main()) == [b"%d\n" % number for number in range(20)]


def test_a_fork_bomb_ends_with_its_session_in_seconds(engine: str) -> None:
    async def main() -> float:
        async with router(engine) as it:
            resources = Resources(processes=200)
            async with it.session(runtime="local", resources=resources) as session:
                await session.run(["sh", "-c", "b() { b | b & }; b; sleep 0.3"])
                started = time.monotonic()
        assert gone(session.name)
        return time.monotonic() - started

    assert asyncio.run(main()) < 10


def test_a_signal_reaches_even_a_command_that_has_hardly_begun(engine: str) -> None:
    async def at_once() -> Any:
        yield Signal(signal.SIGTERM)

    async def main() -> None:
        async with router(engine) as it, it.session(runtime="local") as session:
            ended = await session.run(["sleep", "60"], control=at_once(), timeout=20)
            assert ended.signal == signal.SIGTERM

    asyncio.run(main())


def test_no_descriptor_is_left_open_in_the_owner(engine: str) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def main() -> None:
        async with router(engine) as it:
            await it.run(["true"], runtime="local")
            before = count()
            for _ in range(3):
                out = Capture()
                async with it.session(runtime="local") as session:
                    await session.run(["echo", "x"], stdout=out)
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.05):
                            await session.run(["sleep", "60"])
                assert out.data == b"x\n"
            assert count() == before

    asyncio.run(main())
