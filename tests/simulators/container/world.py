"""A simulated Mac for tests: `container` and `launchctl` on the PATH, and the truth about them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs
import pytest

from simulators.container import configuration, events, images, syntax
from simulators.container.arguments import Syntax
from simulators.container.mac import KNOBS, Mac, alive

BUSYBOX = Path("/usr/bin/busybox")
APPLETS = (
    "sh ash true false cat echo sleep tar ls id env ps kill dd head tail wc sha256sum md5sum mkdir "
    "rm rmdir mv cp ln printf test [ touch grep sed awk od seq chmod chown stat setsid nohup mount "
    "umount timeout tr mkfifo sort find xargs du df hostname uname date which sync yes readlink "
    "realpath dirname basename cut uniq tee mktemp nproc ip whoami expr gzip gunzip base64 cmp"
)
IMAGE = "claw-test:1"
FOREIGN = ("buildkit", "somebody-elses", "somebody-elses-old")
"""Containers that are there from the start, and that no test may touch."""
_LAUNCHER = """\
#!{python} -IS
import sys
sys.path.insert(0, {tests!r})
from simulators.container.{module} import main
main({root!r}, sys.argv[1:])
"""


@attrs.frozen
class Container:
    """The truth about a container.

    Attributes:
        name: its name.
        state: what the server believes, and `ls` says: `running` or `stopped`.
        booted: whether its machine is there, whatever the server believes.
        pid: its init process on the host, while that lives.
    """

    name: str
    state: str
    booted: bool
    pid: int | None


@attrs.frozen
class Recorded:
    """A call of `container` or `launchctl`.

    Attributes:
        program: which.
        argv: its arguments.
        pid: its process.
        env: names of its environment variables.
        start: seconds since the epoch.
        end: the same; None while it runs, and for ever if it was killed.
        exit: its code.
    """

    program: str
    argv: tuple[str, ...]
    pid: int
    env: frozenset[str]
    start: float
    end: float | None = None
    exit: int | None = None


@attrs.frozen
class Fault:
    """Something that is to go wrong."""

    _world: World
    number: str

    @property
    def seen(self) -> int:
        """How many calls it was for, whether it was due or not."""
        faults = self._world.mac.load("faults.json") or []
        return next((one.get("seen", 0) for one in faults if one["id"] == self.number), 0)

    @property
    def hits(self) -> int:
        """How often it has struck."""
        return sum(line.get("fault") == self.number for line in self._world.lines("journal"))


class World:
    """A Mac of one's own, which ends with all its processes when it is left.

    Where no guests can be made, the test is skipped. Leaving it without an error sees to it that
    nobody touched what is not claw's.

    Args:
        directory: where it is; made if missing.
        knobs: as the README has them, such as `version="1.0.0"`.
    """

    def __init__(self, directory: Path, **knobs: Any) -> None:
        self.directory = directory.resolve()
        self.bin = self.directory / "bin"
        self.mac = Mac(str(self.directory))
        self._knobs = knobs

    def __enter__(self) -> Self:
        if why := missing():
            pytest.skip(why)
        for name in ("bin", "containers", "launchd", "images"):
            (self.directory / name).mkdir(parents=True)
        os.mkfifo(self.directory / "lifeline")
        self._lifeline = os.open(self.directory / "lifeline", os.O_RDWR)
        modules = {"container": "command", "launchctl": "launchd"}
        for name, module in {**modules, "container-runtime-linux": "helper"}.items():
            text = _LAUNCHER.format(
                python=sys.executable,
                tests=str(Path(__file__).parents[2]),
                module=module,
                root=str(self.directory),
            )
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)
        self.configure(**self._knobs)
        self.image(IMAGE)
        self._add_foreign()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        violations = self.violations()
        self.end()
        if error is None:
            assert not violations, violations

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, with the world's commands on the PATH."""
        return {**os.environ, "PATH": f"{self.bin}:{os.environ.get('PATH', os.defpath)}"}

    def configure(self, **knobs: Any) -> None:
        """Turn knobs; the next call sees them."""
        unknown = set(knobs) - set(KNOBS)
        assert not unknown, f"no such knob: {unknown}"
        with self.mac.changed("config", {}) as config:
            config.update(knobs)

    def image(
        self,
        name: str,
        *,
        files: Mapping[str, bytes] = {},
        registry: bool = False,
        **config: Any,
    ) -> None:
        """Make an image of busybox and some files.

        Args:
            name: its name.
            files: contents by path.
            registry: whether it is only where `image pull` finds it.
            config: more of its configuration, such as `Env`, `User`, `Cmd`, `StopSignal`.
        """
        number = uuid.uuid4().hex
        root = self.directory / "images" / number
        make_root(root)
        for path, data in files.items():
            (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            (root / path.lstrip("/")).write_bytes(data)
        given = {"Cmd": ["sh"], "Env": ["PATH=/usr/bin:/bin"], **config}
        record = images.record(name, str(root), given, number * 2)
        with self.mac.changed("registry" if registry else "images", {}) as known:
            known[record["name"]] = record

    def run(self, *argv: str, stdin: bytes | None = None, timeout: float = 60) -> Completed:
        """Run `container` to its end."""
        return subprocess.run(
            [self.bin / "container", *argv],
            input=b"" if stdin is None else stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *argv: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start `container` with pipes."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen([self.bin / "container", *argv], **{**pipes, **options})

    def containers(self) -> dict[str, Container]:
        """The truth about all containers but the foreign ones."""
        states = self.mac.load("state.json") or {}
        helpers = self.mac.helpers()
        found = {}
        for name in {*os.listdir(self.directory / "containers"), *helpers} - set(FOREIGN):
            init = self.mac.load("containers", name, "init.json")
            state = states.get(name, {"state": "stopped"})["state"]
            pid = init["pid"] if alive(init) else None
            found[name] = Container(name, state, alive(helpers.get(name)), pid)
        return found

    def processes(self) -> dict[int, str]:
        """All that is alive: `cli`, `apiserver`, `helper` or `guest` by pid."""
        found = dict(events.processes(self.mac))
        helpers = {pid for pid, kind in found.items() if kind == "helper"}
        for pid, parents in _ancestors():
            if pid not in found and helpers & parents:
                found[pid] = "guest"
        return found

    def journal(self, program: str = "container") -> list[Recorded]:
        """Every call so far, in the order in which they began."""
        calls: dict[str, Recorded] = {}
        for line in self.lines("journal"):
            if "argv" in line:
                argv, env = tuple(line["argv"]), frozenset(line["env"])
                begun = Recorded(line["program"], argv, line["pid"], env, line["time"])
                calls[line["call"]] = begun
            elif "exit" in line:
                begun = calls[line["call"]]
                calls[line["call"]] = attrs.evolve(begun, end=line["time"], exit=line["exit"])
        return [call for call in calls.values() if call.program == program]

    def pulls(self) -> list[str]:
        """Every image that was asked of the registry."""
        return [line["pull"] for line in self.lines("journal") if "pull" in line]

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The lines of a journal."""
        path = self.directory / f"{name}.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def violations(self) -> list[str]:
        """What was done that no backend may ever do."""
        return [line["what"] for line in self.lines("violations")]

    def forgive(self) -> None:
        """Forget what was done."""
        (self.directory / "violations.jsonl").unlink(missing_ok=True)

    def holding(self, value: str) -> list[Path]:
        """Files that hold a value that none should, the guests' own included."""
        files = (path for path in self.directory.rglob("*") if path.is_file())
        found = [path for path in files if value.encode() in path.read_bytes()]
        return [path.relative_to(self.directory) for path in found]

    def fault(
        self, verb: str, at: str, action: str, *, call: int = 1, times: int = 1, **options: Any
    ) -> Fault:
        """Let something go wrong.

        Args:
            verb: of which command, such as `delete` or `image inspect`; `*` for any.
            at: where in it; the README has a table.
            action: what; the README has a table.
            call: of which call of the command from now on, counted from 1.
            times: in how many calls from that one on.
            options: what the action needs; `container` limits it to calls that name it.
        """
        number = uuid.uuid4().hex[:8]
        value = {"id": number, "verb": verb, "at": at, "action": action, "call": call}
        with self.mac.changed("faults", []) as faults:
            faults.append({**value, "times": times, **options})
        return Fault(self, number)

    def crash(self) -> None:
        """Kill the server: what runs, runs on, and it does not know."""
        events.crash(self.mac)

    def reboot(self) -> None:
        """Cut the power."""
        events.reboot(self.mac)

    def kill_helper(self, name: str) -> None:
        """Kill the helper of a container."""
        events.kill_helper(self.mac, name)

    def freeze(self, name: str) -> None:
        """Freeze the guest of a container for good."""
        events.freeze(self.mac, name)

    def end(self) -> None:
        """End every process, and remove everything."""
        shutil.rmtree(self.bin)
        os.close(self._lifeline)
        deadline = time.monotonic() + 30
        while found := self.processes():
            for pid in found:
                events.kill(pid)
            assert time.monotonic() < deadline, found
        shutil.rmtree(self.directory, ignore_errors=True)

    def _add_foreign(self) -> None:
        image = images.find(self.mac, IMAGE)
        assert image is not None
        states: dict[str, dict[str, Any]] = {}
        for name in FOREIGN:
            running = not name.endswith("old")
            (self.directory / "containers" / name).mkdir()
            self.mac.save(_foreign(name, image), "containers", name, "config.json")
            options = {"autoRemove": False, "foreign": True, "lower": image["root"]}
            self.mac.save(options, "containers", name, "options.json")
            states[name] = {"state": "stopped"}
            if running:
                states[name] = {"state": "running", "client": True, "startedDate": time.time()}
                self.mac.save({"pid": 400 + len(states), "foreign": True}, "launchd", name)
        self.mac.save(states, "state.json")


Completed = subprocess.CompletedProcess[bytes]


def missing() -> str | None:
    """Why no guests can be made here."""
    if not BUSYBOX.exists():
        return "not installed: busybox-static"
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    if shutil.which("unshare") is None:
        return "not installed: unshare"
    done = subprocess.run(
        ["unshare", *user, "--mount", "--pid", "--fork", "true"], capture_output=True, check=False
    )
    return done.stderr.decode() if done.returncode else None


def make_root(root: Path) -> None:
    """Make a file tree of nothing but busybox."""
    for name in ("bin", "etc", "root", "home", "proc", "sys", "dev", "usr/bin", "tmp", "run"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    try:
        (root / "bin/busybox").hardlink_to(BUSYBOX)
    except OSError:  # another file system
        shutil.copy(BUSYBOX, root / "bin/busybox")
    for applet in APPLETS.split():
        (root / "bin" / applet).symlink_to("busybox")
    rows = ("root:x:0:0:root:/root:/bin/sh", "agent:x:1000:1000:agent:/home/agent:/bin/sh")
    (root / "etc/passwd").write_text("\n".join(rows) + "\n")
    (root / "etc/group").write_text("root:x:0:\nagent:x:1000:\n")


def _foreign(name: str, image: Mapping[str, Any]) -> dict[str, Any]:
    options = (*syntax.PROCESS, *syntax.RESOURCE, *syntax.MANAGEMENT)
    values, _ = Syntax("run", options).parse(["--name", name])
    return configuration.make(Mac(os.devnull), name, dict(image), values, ["sleep", "1000"])


def _ancestors() -> Iterator[tuple[int, set[int]]]:
    """Every process with all its ancestors."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue  # it has just ended
            if stat[0] not in b"ZX":
                parents[int(entry)] = int(stat[1])
    for pid in parents:
        chain, one = set(), pid
        while one := parents.get(one, 0):
            chain.add(one)
        yield pid, chain
