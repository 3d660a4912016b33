"""The socket of a session: whom it serves, what it survives, and when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from claw_core import events, remote
from claw_core.capture import Capture
from claw_core.errors import ClawError, DeadlineExceeded, OutputLimitExceeded
from claw_core.ledger import Intent, Ledger
from claw_core.model import IO, Command, Exit
from claw_core.remote import Request
from core.test_session import Model, Opened, left


@pytest.fixture
def model() -> Model:
    return Model({})


def sockets(state: Path) -> list[Path]:
    return sorted((state / "instances").glob("*.sock"))


def test_it_is_there_while_the_session_is_open_and_for_its_user_only(
    model: Model, state: Path
) -> None:
    async def main() -> None:
        async with Opened(model) as opened:
            async with opened.session() as session:
                (path,) = sockets(state)
                assert session.name.endswith(path.stem[:12])
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert left(state) == []

    asyncio.run(main())


def test_a_request_is_run_as_it_was_asked_for(model: Model, state: Path) -> None:
    asked: list[Command] = []

    async def work(command: Command, io: IO) -> Exit:
        asked.append(command)
        assert io.stdin is not None
        async for chunk in io.stdin:
            await io.stdout(chunk.upper())
        await io.stderr(b"err")
        return Exit(9, reason="as it is")

    model.work = work

    async def given() -> Any:
        yield b"in"

    async def main() -> None:
        async with Opened(model) as opened, opened.session() as session:
            request = Request(("a", "\udcff"), {"K": "v"}, "/w", 5.0)
            out, err = Capture(), Capture()
            ended = await remote.run(sockets(state)[0], request, IO(given(), out, err))
            assert ended == Exit(9, reason="as it is")
            assert (bytes(out.data), bytes(err.data)) == (b"IN", b"err")
            assert session.record.exit is None
            assert "execute" not in session.record.seconds

    asyncio.run(main())
    assert asked == [Command(("a", "\udcff"), {"K": "v"}, "/w")]


def test_failures_arrive_as_they_were(model: Model, state: Path) -> None:
    async def work(command: Command, io: IO) -> Exit:
        if command.argv == ("slow",):
            await asyncio.sleep(60)
        raise ClawError("it broke", remedy="mend it", cleaned="all")

    model.work = work

    async def main() -> None:
        async with Opened(model) as opened, opened.session() as session:
            path, io = sockets(state)[0], IO(None, Capture(), Capture())
            with pytest.raises(ClawError) as caught:
                await remote.run(path, Request(("x",)), io)
            assert str(caught.value) == (
                f"model execute ({session.name}): it broke\n"
                "  cleaned up: all\n"
                "  what to do: mend it"
            )
            with pytest.raises(ClawError) as caught:
                await remote.run(path, Request(("slow",), timeout=0.05), io)
            assert caught.value.exit_code == DeadlineExceeded.exit_code
            with pytest.raises(ClawError) as caught:
                await remote.run(path, Request(()), io)
            assert caught.value.exit_code == 2

    asyncio.run(main())


def test_a_sink_that_fails_is_the_failure_and_ends_the_command(model: Model, state: Path) -> None:
    ended = asyncio.Event()

    async def work(command: Command, io: IO) -> Exit:
        try:
            while True:
                await io.stdout(bytes(1 << 16))
        finally:
            ended.set()

    model.work = work

    async def main() -> None:
        async with Opened(model) as opened, opened.session():
            io = IO(None, Capture(limit=10), Capture())
            with pytest.raises(OutputLimitExceeded):
                await remote.run(sockets(state)[0], Request(("x",)), io)
            assert ended.is_set()

    asyncio.run(main())


def test_nonsense_is_answered_or_dropped_and_harms_nobody(model: Model, state: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Opened(model) as opened, opened.session():
            for sent, descriptors, answered in (
                (b"", 0, False), (b"{", 0, True), (b"{", 3, False), (b"nonsense\n", 3, True),
                (b"{}\n", 3, True), (b"[]\n", 3, True), (b'{"v": 2}\n', 3, True),
                (remote.Request(("x",)).encode(), 2, True),
            ):  # fmt: skip
                with socket.socket(socket.AF_UNIX) as client, open(os.devnull) as null:
                    client.setblocking(False)
                    client.connect(str(sockets(state)[0]))
                    if sent:
                        socket.send_fds(client, [sent], [null.fileno()] * descriptors)
                    client.shutdown(socket.SHUT_WR)
                    async with asyncio.timeout(10):
                        answer = b""
                        while chunk := await loop.sock_recv(client, 4096):
                            answer += chunk
                if answer:
                    assert "cannot be read" in json.loads(answer)["error"]["message"]
                assert bool(answer) == answered, sent
            io = IO(None, Capture(), Capture())
            assert await remote.run(sockets(state)[0], Request(("x",)), io) == Exit(0)

    asyncio.run(main())
    assert model.calls.count("execute") == 1


def test_the_end_of_the_session_does_not_wait_for_a_command_that_hangs(
    model: Model, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claw_core.endpoint.CLOSE_TIMEOUT", 0.1)
    started, free = asyncio.Event(), asyncio.Event()

    async def work(command: Command, io: IO) -> Exit:
        started.set()
        while not free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await free.wait()
        return Exit(0)

    model.work = work

    async def main() -> None:
        async with Opened(model) as opened:
            async with opened.session() as session:
                io = IO(None, Capture(), Capture())
                asking = asyncio.create_task(remote.run(sockets(state)[0], Request(("x",)), io))
                await started.wait()
            assert session.record.teardown == "gone"
            assert left(state) == []
            free.set()
            with pytest.raises(ClawError, match="the session has ended"):
                await asking

    asyncio.run(main())


def test_a_session_that_cannot_listen_goes_on_with_a_notice(model: Model, state: Path) -> None:
    async def occupy() -> None:
        for entry in (state / "instances").glob("*.jsonl"):
            entry.with_suffix(".sock").touch()

    model.then["start"] = occupy

    async def main() -> list[str]:
        async with Opened(model) as opened, opened.session() as session:
            assert await session.run(["x"]) == Exit(0)
        return [event.text for event in opened.seen if isinstance(event, events.Notice)]

    (notice,) = asyncio.run(main())
    assert notice.startswith("`claw exec` cannot reach claw-")
    assert "in use" in notice
    assert left(state) == []


def test_nobody_answers_where_no_owner_listens(state: Path) -> None:
    async def main() -> None:
        stale = state / "stale.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(stale))
        for path in (stale, state / "none.sock"):
            with pytest.raises(ClawError, match="its owner takes no commands"):
                await remote.run(path, Request(("x",)), IO(None, Capture(), Capture()))

    asyncio.run(main())


def test_what_is_left_of_a_dead_owner_goes_with_its_entry(state: Path) -> None:
    ledger = Ledger.open(state)
    lease = ledger.acquire(Intent.new(ledger.install, "model", {}))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(lease.socket))
    lease.abandon()
    (entry,) = ledger.scan()
    assert entry.socket.exists()
    taken = ledger.claim(entry)
    assert taken is not None
    taken.release()
    assert left(state) == []


def test_a_socket_without_an_entry_is_swept(state: Path) -> None:
    ledger = Ledger.open(state)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(ledger.directory / f"{'0' * 32}.sock"))
    assert ledger.scan(sweep=False) == []
    assert left(state) != []
    assert ledger.scan() == []
    assert left(state) == []


@pytest.fixture
def open_state() -> Iterator[Path]:
    """A state directory that other users may look into, as a mistake of its owner."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as text:
        Path(text).chmod(0o711)
        yield Path(text)


def test_another_user_is_not_answered(model: Model, open_state: Path) -> None:
    program = (
        "import socket, sys\n"
        "client = socket.socket(socket.AF_UNIX); client.connect(sys.argv[1])\n"
        "print(client.recv(1))"
    )

    async def main() -> None:
        async with Opened(model, state=open_state) as opened, opened.session():
            (path,) = sockets(open_state)
            path.parent.chmod(0o711)
            path.chmod(0o666)
            done = await asyncio.to_thread(
                subprocess.run,
                ["/usr/bin/python3", "-c", program, str(path)],
                user=1000,
                group=1000,
                extra_groups=[],
                capture_output=True,
                timeout=5,  # less than what a request may take to come
            )
            assert done.stdout == b"b''\n", done.stderr

    asyncio.run(main())
