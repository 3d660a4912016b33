"""Commands with a terminal: its size, its keys, its one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from claw_core.host import Host
from claw_core.intent import Intent
from claw_core.ledger import Ledger
from claw_core.model import IO, Command, Control, Exit, Instance, Resize, Spec
from claw_runtime_docker.runtime import DockerRuntime
from runtime_docker.engines import IMAGE, TestEngine
from runtime_docker.support import processes, run


class Screen:
    """What a command wrote to its terminal, and a way to wait for some of it."""

    def __init__(self) -> None:
        self.text = ""
        self._grown = asyncio.Event()

    async def write(self, data: bytes) -> None:
        self.text += data.decode()
        self._grown.set()

    async def shows(self, text: str) -> None:
        while text not in self.text:
            self._grown.clear()
            await self._grown.wait()


Dialogue = Callable[[Screen], AsyncIterator[bytes]]


async def silent(screen: Screen) -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


def in_terminal(
    engine: TestEngine,
    state: Path,
    program: str,
    keys: Dialogue = silent,
    control: Callable[[Screen], AsyncIterator[Control]] | None = None,
    secrets: dict[str, str] | None = None,
) -> tuple[Exit, str, list[str]]:
    async def work() -> tuple[Exit, str, list[str]]:
        ledger = Ledger.open(state)
        runtime = DockerRuntime({"host": engine.host, "image": IMAGE})
        intent = Intent.new(ledger.install, "docker", runtime.settings)
        screen = Screen()
        with ledger.acquire(intent) as lease:
            host = Host(lease, "docker", secrets or {})
            subject = Instance(intent.name, Spec(secrets=tuple(secrets or ())), host)
            try:
                await runtime.prepare(subject)
                await runtime.start(subject)
                command = Command(("sh", "-c", program), terminal=Resize(33, 77))
                io = IO(keys(screen), screen.write, screen.write, control and control(screen))
                ended = await runtime.execute(subject, command, io)
                return ended, screen.text, processes(engine, subject.name)
            finally:
                await runtime.teardown(subject)

    return run(work())


def test_it_is_a_terminal_of_the_callers_size_from_the_start(
    engine: TestEngine, state: Path
) -> None:
    ended, text, _ = in_terminal(engine, state, "test -t 0 && test -t 1 && stty size; exit 5")
    assert (ended.code, text) == (5, "33 77\r\n")


def test_a_resize_arrives(engine: TestEngine, state: Path) -> None:
    async def control(screen: Screen) -> AsyncIterator[Control]:
        await screen.shows("ready")
        yield Resize(10, 20)
        await asyncio.Event().wait()

    program = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    _, text, _ = in_terminal(engine, state, program, control=control)
    assert text == "ready\r\n10 20\r\n"


def test_what_is_typed_arrives_and_is_echoed(engine: TestEngine, state: Path) -> None:
    async def keys(screen: Screen) -> AsyncIterator[bytes]:
        await screen.shows("name? ")
        yield b"claw\n"
        await asyncio.Event().wait()

    _, text, _ = in_terminal(engine, state, "printf 'name? '; read name; echo hi $name", keys)
    assert text == "name? claw\r\nhi claw\r\n"


def test_the_interrupt_key_interrupts(engine: TestEngine, state: Path) -> None:
    async def keys(screen: Screen) -> AsyncIterator[bytes]:
        await screen.shows("ready")
        yield b"\x03"
        await asyncio.Event().wait()

    ended, _, left = in_terminal(engine, state, "echo ready; sleep 600", keys)
    assert ended.code == 130
    assert left == []


def test_secrets_are_there_and_never_echoed(engine: TestEngine, state: Path) -> None:
    secrets = {"TOKEN": "canary-\nof-two-lines"}
    program = 'test "${#TOKEN}" = 20 && echo there'
    ended, text, _ = in_terminal(engine, state, program, secrets=secrets)
    assert (ended.code, text) == (0, "there\r\n")
