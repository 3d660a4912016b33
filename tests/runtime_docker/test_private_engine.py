"""The engine of the tests ends with its last user, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from cli.support import eventually, marked
from runtime_docker import engines

USER = """
import os, sys, threading
from pathlib import Path
from runtime_docker import engines
with engines.used(Path(sys.argv[1])) as engine:
    name = f"left-{os.getpid()}"
    engine.call("POST", f"/containers/create?name={name}", None, {"Image": engines.IMAGE,
        "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "none"}})
    assert engine.call("POST", f"/containers/{name}/start")[0] == 204
    print("up", flush=True)
    threading.Event().wait()
"""


def user(directory: Path) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(directory)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
    )


@pytest.mark.skipif(bool(engines.missing()), reason=str(engines.missing()))
def test_it_is_shared_and_ends_with_the_last_user_even_when_that_is_killed() -> None:
    directory = Path(f"/var/tmp/claw-engine-{uuid.uuid4().hex[:12]}")
    with user(directory) as first, user(directory) as second:
        for one in (first, second):
            assert one.stdout is not None
            assert one.stdout.readline() == b"up\n"
        assert len([p for p in marked(f"{directory}/d.sock") if p]) == 1
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert engines.TestEngine(directory).answers()
        second.send_signal(signal.SIGKILL)
    assert eventually(lambda: not directory.exists(), 30)
    assert eventually(lambda: marked(str(directory)) == [], 30)
