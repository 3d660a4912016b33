"""The same engine, embedded: asynchronous, one-shot, and without asyncio at all."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import claw_core
from claw_core import events
from claw_core.errors import ConfigError, Refused
from cli.support import entries


def test_one_session_runs_many_commands(tmp_path: Path) -> None:
    async def main() -> list[bytes]:
        out = claw_core.Capture()
        async with (
            claw_core.Router.open() as router,
            router.session(runtime="local", env={"A": "1"}) as session,
        ):
            await session.run(["sh", "-c", "echo kept > /tmp/file; echo $A"], stdout=out)
            await session.run(["sh", "-c", "cat /tmp/file; echo $A"], stdout=out, env={"A": "2"})
            await session.download("/tmp/file", tmp_path / "file")
            await session.upload(tmp_path / "file", "/tmp/again")
            await session.run(["cat", "/tmp/again"], stdout=out)
        return bytes(out.data).split()

    assert asyncio.run(main()) == [b"1", b"kept", b"2", b"kept"]


def test_a_host_may_lay_out_the_folder_of_a_group_itself(tmp_path: Path) -> None:
    (tmp_path / "groups/chat").mkdir(parents=True)
    config = claw_core.Config.load(root=tmp_path)

    async def main() -> list[tuple[str, ...]]:
        async with claw_core.Router.open(config=config) as router:
            routes = [
                await router.route("chat", folder=one, runtime="local") for one in (True, False)
            ]
            async with router.session(group="chat", folder=False, runtime="local") as session:
                routes.append(session.route)
        return [tuple(mount.target for mount in route.spec.mounts) for route in routes]

    assert asyncio.run(main()) == [("/workspace/group",), (), ()]


def test_sessions_run_side_by_side(state: Path) -> None:
    async def one(router: claw_core.Router, number: int) -> bytes:
        return (await router.run(["sh", "-c", f"sleep 0.1; echo {number}"])).stdout

    async def main() -> list[bytes]:
        async with claw_core.Router.open() as router:
            return list(await asyncio.gather(*(one(router, number) for number in range(8))))

    assert asyncio.run(main()) == [f"{number}\n".encode() for number in range(8)]
    assert entries(state) == []


def test_commands_run_side_by_side_in_one_session() -> None:
    async def main() -> list[bytes]:
        async with (
            claw_core.Router.open() as router,
            router.session(runtime="local") as session,
        ):

            async def one(number: int) -> bytes:
                out = claw_core.Capture()
                await session.run(["sh", "-c", f"sleep 0.1; echo {number}"], stdout=out)
                return bytes(out.data)

            return list(await asyncio.gather(*(one(number) for number in range(10))))

    assert asyncio.run(main()) == [f"{number}\n".encode() for number in range(10)]


def test_input_can_be_produced_while_the_command_runs() -> None:
    async def numbers() -> AsyncIterator[bytes]:
        for number in range(3):
            yield f"{number}\n".encode()
            await asyncio.sleep(0.01)

    async def main() -> bytes:
        async with claw_core.Router.open() as router:
            return (await router.run(["cat"], stdin=numbers())).stdout

    assert asyncio.run(main()) == b"0\n1\n2\n"


def test_run_works_without_asyncio() -> None:
    result = claw_core.run(["sh", "-c", "echo out; echo err >&2; exit 5"])
    assert (result.exit.code, result.stdout, result.stderr) == (5, b"out\n", b"err\n")
    assert result.record.teardown == "gone"


def test_run_works_inside_a_running_loop() -> None:
    async def main() -> bytes:
        return claw_core.run(["echo", "inside"]).stdout

    assert asyncio.run(main()) == b"inside\n"


def test_run_works_in_another_thread() -> None:
    results: list[bytes] = []
    thread = threading.Thread(target=lambda: results.append(claw_core.run(["echo", "x"]).stdout))
    thread.start()
    thread.join()
    assert results == [b"x\n"]


def test_run_raises_what_failed_and_leaves_the_thread_behind_nowhere() -> None:
    before = threading.active_count()
    with pytest.raises(ConfigError, match="nope"):
        claw_core.run(["true"], runtime="nope")
    assert threading.active_count() == before


def test_control_c_tears_down_before_it_reaches_the_caller(state: Path) -> None:
    program = (
        "import claw_core, os, signal, threading, pathlib\n"
        "async def show(data): os.kill(os.getpid(), signal.SIGINT)\n"
        "try: claw_core.run(['sh', '-c', 'echo go; sleep 60'], stdout=show)\n"
        "except KeyboardInterrupt: print('interrupted')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=False
    )
    assert done.stdout == b"interrupted\n", done.stderr
    assert entries(state) == []


def test_the_library_installs_no_signal_handlers() -> None:
    program = (
        "import claw_core, signal\n"
        "before = [signal.getsignal(n) for n in range(1, 32)]\n"
        "seen = []\n"
        "async def show(data): seen.append([signal.getsignal(n) for n in range(1, 32)])\n"
        "claw_core.run(['echo', 'x'], stdout=show)\n"
        "assert seen == [before]\n"
    )
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)


def test_a_refusal_starts_nothing(state: Path) -> None:
    with pytest.raises(Refused, match="image"):
        claw_core.run(["true"], runtime="local", image="something")
    assert entries(state) == []


def test_what_an_upload_leaves_out_is_said(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    os.mkfifo(tmp_path / "project" / "pipe")
    seen: list[object] = []

    async def main() -> None:
        async with (
            claw_core.Router.open(listener=seen.append) as router,
            router.session(runtime="local") as session,
        ):
            await session.upload(tmp_path / "project", "/tmp/project")

    asyncio.run(main())
    assert any(isinstance(event, events.Notice) and "pipe" in event.text for event in seen)
