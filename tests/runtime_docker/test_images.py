"""Pulling from a real registry on loopback, and what cannot be pulled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from claw_core import events
from claw_core.errors import Refused, RuntimeFault
from claw_core.model import Audit
from claw_runtime_docker import images
from claw_runtime_docker.errors import EngineBroken
from cli.support import eventually
from runtime_docker.bad_engine import answer, serving
from runtime_docker.engines import IMAGE, TestEngine
from runtime_docker.support import run, session, shell

CONFIGURATION = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {place}}}}}
http: {{addr: "127.0.0.1:{port}"}}
log: {{level: error}}
"""


@pytest.fixture(scope="module")
def registry(engine: TestEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry inside the network namespace of the engine, with one image that is only there."""
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    place = tmp_path_factory.mktemp("registry")
    # One per worker, all in the namespace of the one engine.
    port = 5000 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    (place / "config.yml").write_text(CONFIGURATION.format(place=place, port=port))
    pid = (engine.directory / "namespace").read_text()
    argv = ["nsenter", "-t", pid, "-n", "docker-registry", "serve", str(place / "config.yml")]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        name = f"127.0.0.1:{port}/claw-{uuid.uuid4().hex[:8]}"
        try:
            assert engine.call("POST", f"/images/{IMAGE}/tag", {"repo": name, "tag": "1"})[0] == 201

            def pushed() -> bool:
                return b'"error"' not in engine.push(name)

            assert eventually(pushed, 30)
            engine.call("DELETE", f"/images/{name}:1")
            yield f"{name}:1"
        finally:
            process.kill()


def test_an_image_that_is_missing_is_pulled_with_progress(
    engine: TestEngine, registry: str
) -> None:
    seen: list[str] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.Progress):
            seen.append(event.text)

    async def work() -> None:
        async with session(engine, image=registry, listener=listen) as s:
            assert await shell(s, "echo pulled") == "pulled\n"

    assert engine.call("GET", f"/images/{registry}/json")[0] == 404
    run(work())
    assert engine.call("GET", f"/images/{registry}/json")[0] == 200
    assert any(text.startswith(f"pulling {registry}: ") for text in seen), seen


def test_an_image_that_the_registry_does_not_have_is_refused(
    engine: TestEngine, registry: str
) -> None:
    missing = registry.removesuffix(":1") + ":2"

    async def work() -> None:
        async with session(engine, image=missing):
            raise AssertionError

    with pytest.raises(Refused, match="cannot be pulled") as caught:
        run(work())
    assert f"docker pull {missing}" in str(caught.value.remedy)


def lines(*messages: object) -> bytes:
    return b"\n".join(json.dumps(message).encode() for message in messages)


@pytest.mark.parametrize(
    ("stream", "error", "why"),
    [
        (lines({"status": "x"}, {"error": "disk is full"}), RuntimeFault, "x: disk is full"),
        (b"{", EngineBroken, "is no JSON"),
    ],
)
def test_a_pull_that_fails_in_the_middle_is_told(
    tmp_path: Path, stream: bytes, error: type[Exception], why: str
) -> None:
    async def work() -> None:
        async with serving(tmp_path, {"images/create": answer(200, stream)}) as engine:
            await images.pull(engine, "x", lambda text: None)

    with pytest.raises(error, match=why):
        run(work())


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("a", ("a", "latest")),
        ("a:1", ("a", "1")),
        ("host:5000/a", ("host:5000/a", "latest")),
        ("host:5000/a:1", ("host:5000/a", "1")),
        ("a@sha256:00", ("a", "sha256:00")),
    ],
)
def test_names_of_images(image: str, parts: tuple[str, str]) -> None:
    assert images.split(image) == parts


def test_an_audit_is_named_after_its_label_and_instance(engine: TestEngine) -> None:
    seen: list[str] = []

    async def work() -> str:
        async with session(engine, listener=lambda event: seen.append(str(event))) as s:
            name = await s.snapshot(Audit("after a / failure"))
            assert name == f"claw-audit:after-a-failure-{s.name.removeprefix('claw-')}"
            return name

    name = run(work())
    assert engine.call("GET", f"/images/{name}/json")[0] == 200
    assert any("paths differ from" in text for text in seen)
    assert engine.call("DELETE", f"/images/{name}")[0] == 200
