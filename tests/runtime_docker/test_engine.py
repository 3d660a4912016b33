"""The client of the API, against a real engine and against servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from claw_runtime_docker import creation, frames
from claw_runtime_docker.creation import create
from claw_runtime_docker.endpoint import Endpoint
from claw_runtime_docker.engine import Engine
from claw_runtime_docker.errors import EngineBroken, EngineError, EngineUnavailable
from runtime_docker.bad_engine import HANG, PING, answer, serving
from runtime_docker.engines import IMAGE, TestEngine

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(bounded())


def client(engine: TestEngine) -> Engine:
    return Engine(Endpoint.parse(engine.host, "a test"))


@contextlib.contextmanager
def container(engine: TestEngine, name: str) -> Iterator[str]:
    body = {"Image": IMAGE, "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "none"}}
    assert engine.call("POST", f"/containers/create?name={name}", None, body)[0] == 201
    assert engine.call("POST", f"/containers/{name}/start")[0] == 204
    try:
        yield name
    finally:
        engine.call("DELETE", f"/containers/{name}?force=1&v=1")


def test_the_version_is_negotiated(engine: TestEngine) -> None:
    spoken = run(client(engine).version())
    assert spoken == engine.call("GET", "/version")[1]["ApiVersion"]


def test_answers_are_decoded_and_empty_ones_are_none(engine: TestEngine) -> None:
    async def calls() -> None:
        subject = client(engine)
        assert (await subject.call("GET", "/info"))["ID"]
        with pytest.raises(EngineError, match=r"refused GET /images/nope/json.*404") as caught:
            await subject.call("GET", "/images/nope/json")
        assert caught.value.status == 404

    run(calls())


def test_a_hijacked_stream_carries_both_directions_byte_exactly(engine: TestEngine) -> None:
    data = os.urandom(3 << 20)

    async def through(name: str) -> dict[int, bytes]:
        subject = client(engine)
        body = {
            "Cmd": ["sh", "-c", "echo problem >&2; cat"],
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
        }
        made = await subject.call("POST", f"/containers/{name}/exec", None, body)
        stream = await subject.hijack(f"/exec/{made['Id']}/start", None, {"Tty": False})

        async def feed() -> None:
            await stream.write(data)
            stream.half_close()

        feeding = asyncio.create_task(feed())
        found = {1: b"", 2: b""}
        async for channel, piece in frames.split(stream.read):
            found[channel] += piece
        await feeding
        stream.close()
        stream.close()
        return found

    with container(engine, "raw-stream") as name:
        found = run(through(name))
    assert found == {1: data, 2: b"problem\n"}


def test_no_engine_is_told_with_the_remedy(tmp_path: Path) -> None:
    subject = Engine(Endpoint.parse(f"unix://{tmp_path}/none.sock", "the setting host"))
    with pytest.raises(
        EngineUnavailable, match=r"no engine answers at unix://.*setting host.*No such file"
    ) as caught:
        run(subject.version())
    assert "start the engine" in str(caught.value.remedy)


def test_a_socket_without_a_server_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "dead.sock"))
    subject = Engine(Endpoint.parse(f"unix://{tmp_path}/dead.sock", "a test"))
    with pytest.raises(EngineUnavailable, match="Connection refused"):
        run(subject.version())


def test_a_closed_port_is_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subject = Engine(Endpoint.parse(f"tcp://127.0.0.1:{port}", "a test"))
    with pytest.raises(EngineUnavailable, match=f"tcp://127.0.0.1:{port}.*refused"):
        run(subject.version())


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_no_permission_on_the_socket_is_told(engine: TestEngine) -> None:
    """In a process of its own, as an ordinary user."""
    program = (
        "import asyncio, os, sys\n"
        "from claw_runtime_docker.engine import Engine\n"
        "from claw_runtime_docker.endpoint import Endpoint\n"
        "subject = Engine(Endpoint.parse(sys.argv[1], 'a test'))\n"
        "os.setgroups([]); os.setgid(65533); os.setuid(65533)\n"
        "try: asyncio.run(subject.version())\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    engine.directory.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", program, engine.host], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("EngineUnavailable")
    assert "Permission denied" in done.stdout
    assert "become a member of the socket's group" in done.stdout


def ping(version: str) -> dict[str, bytes]:
    return {"_ping": PING.replace(b"1.41", version.encode())}


@pytest.mark.parametrize(
    ("answers", "error", "why"),
    [
        (ping("1.39"), EngineUnavailable, "too old: its API is 1.39"),
        (ping("two"), EngineUnavailable, "names no version"),
        ({"_ping": answer(200, b"OK")}, EngineUnavailable, "is no engine"),
        ({"_ping": answer(503, b"")}, EngineUnavailable, "is no engine .status 503"),
        ({"_ping": b"220 mail.example ESMTP\r\n"}, EngineBroken, "no valid answer"),
        ({"_ping": b""}, EngineBroken, "no valid answer|without an answer"),
        ({"info": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"}, EngineBroken, "no valid"),
        ({"info": answer(200, b"<html>")}, EngineBroken, "no JSON, asked for GET /v1.41/info"),
        ({"info": answer(500, b"broken")}, EngineError, "GET /info: broken .status 500"),
        ({"info": answer(500, b'{"message": 1}')}, EngineError, "GET /info: 1"),
        ({"info": answer(500, b"[]")}, EngineError, r"GET /info: \[\]"),
        ({"info": HANG}, EngineBroken, "did not answer GET /v1.41/info within 0.3 s"),
        ({"info": answer(200, b"{}")[:-1] + HANG}, EngineBroken, "within 0.3 s"),
    ],
)
def test_what_misbehaves_is_told(
    tmp_path: Path, answers: dict[str, bytes], error: type[Exception], why: str
) -> None:
    async def call() -> None:
        async with serving(tmp_path, answers, timeout=0.3) as subject:
            await subject.call("GET", "/info")

    with pytest.raises(error, match=why):
        run(call())


def test_an_engine_that_is_too_new_is_told_with_the_remedy(tmp_path: Path) -> None:
    said = {"message": "client version 1.51 is too old. Minimum supported API version is 1.60"}
    answers = {**ping("1.70"), "info": answer(400, json.dumps(said).encode())}

    async def call() -> None:
        async with serving(tmp_path, answers) as subject:
            assert await subject.version() == "1.51"
            await subject.call("GET", "/info")

    with pytest.raises(EngineError, match="Minimum supported") as caught:
        run(call())
    assert "upgrade claw-runtime-docker" in str(caught.value.remedy)


def test_a_stream_without_an_upgrade_works_as_well(tmp_path: Path) -> None:
    """Some engines answer 200 and then send until they close."""
    body = struct.pack(">BxxxL", 1, 5) + b"hello"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"

    async def collect() -> bytes:
        async with serving(tmp_path, {"attach": head + body}) as subject:
            stream = await subject.hijack("/containers/x/attach")
            with contextlib.closing(stream):
                return b"".join([data async for _, data in frames.split(stream.read)])

    assert run(collect()) == b"hello"


FORGETFUL = answer(500, b'{"message": "creating container storage: layer not known"}')


def test_an_engine_that_loses_sight_of_a_layer_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def make(*said: bytes) -> int:
        answers = [*said]
        async with serving(tmp_path, {"containers/create": answers}) as subject:
            await create(subject, "claw-0-0", {})
        return len(answers)

    assert run(make(FORGETFUL, FORGETFUL, answer(201, b"{}"), answer(500, b"asked too often"))) == 1
    with pytest.raises(EngineError, match="in use"):
        run(make(FORGETFUL, answer(500, b"the name is in use"), answer(201, b"{}")))
    monkeypatch.setattr(creation, "PATIENCE", 0.1)
    with pytest.raises(EngineError, match="layer not known"):
        run(make(FORGETFUL))


def test_a_hijack_that_is_refused_or_hangs_is_told(tmp_path: Path) -> None:
    async def attach(said: bytes) -> None:
        async with serving(tmp_path, {"attach": said}, timeout=0.3) as subject:
            await subject.hijack("/containers/x/attach")

    with pytest.raises(EngineError, match="no such container"):
        run(attach(answer(404, b'{"message": "no such container"}')))
    with pytest.raises(EngineBroken, match="did not answer"):
        run(attach(HANG))


def test_no_connection_is_left_open(engine: TestEngine) -> None:
    def sockets() -> int:
        links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
        found = 0
        for link in links:
            with contextlib.suppress(OSError):
                found += bool(re.match("socket:", os.readlink(link)))
        return found

    async def calls() -> None:
        subject = client(engine)
        await subject.version()
        before = sockets()
        await subject.call("GET", "/info")
        with pytest.raises(EngineError):
            await subject.call("GET", "/images/nope/json")
        with pytest.raises(EngineError):
            await subject.hijack("/containers/nope/attach")
        assert sockets() == before

    run(calls())
