"""Engines for tests: one that all workers share, private ones that may be stopped and killed."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from cli.support import eventually

SUPERVISOR = Path(__file__).with_name("supervisor.py")
BUSYBOX = Path("/usr/bin/busybox")
APPLETS = (
    "sh true false cat echo sleep tar ls id env ps kill dd head wc sha256sum mkdir rm printf test "
    "touch tail grep sed awk od seq nc chmod stat stty yes setsid nohup mount ln timeout tr md5sum "
    "mkfifo sort"
)
IMAGE = "claw-test:1"


class _Http(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


class TestEngine:
    """A running private engine, seen through a client of its own, independent of claw's."""

    __test__ = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "d.sock"
        self.host = f"unix://{self.socket}"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def call(self, method: str, path: str, query: object = None, body: object = None) -> Any:
        """Return status and decoded answer."""
        connection = _Http(self.socket)
        try:
            target = path + (f"?{urlencode(query, doseq=True)}" if query else "")  # type: ignore[arg-type] # a mapping or pairs
            if isinstance(body, bytes):
                data, kind = body, "application/x-tar"
            else:
                data, kind = (json.dumps(body).encode() if body else b""), "application/json"
            connection.request(method, target, data, {"Content-Type": kind})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def answers(self) -> bool:
        try:
            return bool(self.call("GET", "/_ping")[0] == 200)
        except (OSError, http.client.HTTPException):
            return False

    def creates(self) -> bool:
        """Whether a container can be made of its first image."""
        body = {"Image": self.images()[0], "HostConfig": {"NetworkMode": "none"}}
        made = bool(self.call("POST", "/containers/create", {"name": "probe"}, body)[0] == 201)
        if made:
            self.call("DELETE", "/containers/probe", {"force": 1})
        return made

    def names(self) -> set[str]:
        """Names of all containers in every state."""
        _, found = self.call("GET", "/containers/json", {"all": 1})
        return {name.lstrip("/") for one in found for name in one["Names"]}

    def images(self) -> list[str]:
        """Names of all images; `<none>:<none>` for one that has lost its own."""
        _, found = self.call("GET", "/images/json")
        return [name for one in found for name in one["RepoTags"] or ["<none>:<none>"]]

    def volumes(self) -> list[str]:
        return [one["Name"] for one in self.call("GET", "/volumes")[1]["Volumes"] or []]

    def inspect(self, name: str) -> Any:
        return self.call("GET", f"/containers/{name}/json")[1]

    def import_image(self, root: bytes, name: str, *changes: str) -> None:
        repository, _, tag = name.partition(":")
        query = [("fromSrc", "-"), ("repo", repository), ("tag", tag)]
        query += [("changes", change) for change in changes]
        status, said = self.call("POST", "/images/create", query, root)
        assert status == 200, said

    def push(self, image: str) -> bytes:
        """Push to a registry that wants no login, and return what the engine says."""
        connection = _Http(self.socket)
        try:
            headers = {"X-Registry-Auth": "e30="}  # an empty object
            connection.request("POST", f"/images/{image}/push?tag=1", b"", headers)
            return connection.getresponse().read()
        finally:
            connection.close()

    def order(self, verb: str) -> None:
        """Tell PID 1 to `start` the engine or to send it `signal N`, and wait until it has."""
        reply = uuid.uuid4().hex
        with (self.directory / "commands").open("w") as pipe:
            pipe.write(f"{verb} {reply}\n")
        assert eventually((self.directory / reply).exists, 30), verb

    def start(self) -> None:
        self.order("start")
        assert eventually(self.answers, 60), self.log[-2000:]

    def signal(self, number: int) -> None:
        self.order(f"signal {int(number)}")


def missing(*options: str) -> str | None:
    """Why no engine can be started here; `options` as for the supervisor."""
    if os.geteuid() != 0:
        return "a private engine takes root"
    engine = "podman" if "podman" in options else "dockerd"
    tools = [tool for tool in (engine, "unshare", "ip") if shutil.which(tool) is None]
    if tools or not BUSYBOX.exists():
        return f"not installed: {', '.join(tools) or 'busybox-static'}"
    return None


@contextlib.contextmanager
def used(directory: Path, *options: str) -> Iterator[TestEngine]:
    """Use the engine of a directory, which is started by the first and ends with the last.

    Where none can be started, the test is skipped.
    """
    if why := missing(*options):
        pytest.skip(why)
    with contextlib.ExitStack() as stack:
        while True:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                users = stack.enter_context((directory / "users").open("w"))
                fcntl.flock(users, fcntl.LOCK_SH)
                starting = stack.enter_context((directory / "starting").open("w"))
                fcntl.flock(starting, fcntl.LOCK_EX)
            except FileNotFoundError:
                continue  # the last user's engine has just ended
            if os.fstat(users.fileno()).st_nlink and os.fstat(starting.fileno()).st_nlink:
                break
        engine = TestEngine(directory)
        if not (directory / "ready").exists():
            with (directory / "supervisor.log").open("ab") as log:
                subprocess.run(
                    [sys.executable, str(SUPERVISOR), "outer", str(directory), *options],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    check=True,
                )
            assert eventually(engine.answers, 60), (directory / "supervisor.log").read_text()
            engine.import_image(busybox_root(), IMAGE, "ENV PATH=/bin", 'CMD ["sh"]')
            # Podman 4.3 may not know a layer for a moment that it has just imported.
            assert eventually(engine.creates, 30), engine.log[-2000:]
            (directory / "ready").touch()
        fcntl.flock(starting, fcntl.LOCK_UN)
        yield engine


@contextlib.contextmanager
def shared() -> Iterator[TestEngine]:
    """The engine that all workers of this test run share."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}")
    with used(Path(f"/var/tmp/claw-engine-{run[:12]}")) as engine:
        yield engine


@contextlib.contextmanager
def private(*options: str) -> Iterator[TestEngine]:
    """An engine of one's own, which may be stopped, killed and restarted."""
    directory = Path(f"/var/tmp/claw-engine-{uuid.uuid4().hex[:12]}")
    with used(directory, *options) as engine:
        yield engine
    deadline = time.monotonic() + 30
    while directory.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not directory.exists()


def busybox_root() -> bytes:
    """A file tree of nothing but busybox, as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folders = ("bin", "etc", "root", "home", "proc", "sys", "dev", "usr", "usr/bin")
        for name in (*folders, "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(folder)
        add_file(archive, "bin/busybox", BUSYBOX.read_bytes(), 0o755)
        for applet in APPLETS.split():
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        add_file(archive, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        add_file(archive, "etc/group", b"root:x:0:\n")
    return buffer.getvalue()


def add_file(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    archive.addfile(member, io.BytesIO(data))
