"""A machine's life: how it is made, what it sees, what is said of it, and that it is gone."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
from pathlib import Path

import pytest

from claw_core.errors import ArchiveError, Refused, RuntimeFault
from claw_core.isolation import Isolation
from claw_core.ledger import default_state_directory
from claw_core.model import Assessment, Mount, Resources, Spec
from claw_runtime_tart.runtime import TartRuntime
from cli.support import claw, entries, start
from runtime_tart import worlds
from runtime_tart.support import output, run, session, shell
from simulators.tart.world import Simulator


def git(directory: Path, *arguments: str) -> str:
    own = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "safe.directory=*")
    return subprocess.run(
        ["git", *own, *arguments], cwd=directory, check=True, capture_output=True, text=True
    ).stdout


def test_the_flow_of_a_group(shared: Simulator, tmp_path: Path, state: Path) -> None:
    """NanoClaw's own configuration, from the command to the last process."""
    group = tmp_path / "groups" / "finance"
    group.mkdir(parents=True)
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(path.stat().st_mode | 0o755)
    group.chmod(0o777)
    (group / "CLAUDE.md").write_text("our rules")
    (group / "config.json").write_text(
        json.dumps({"containerConfig": {"runtime": "tart", "timeout": 60_000, "env": {"A": "b"}}})
    )
    key = secrets.token_hex(16)
    (tmp_path / ".env").write_text(
        f"CONTAINER_RUNTIME=container\nTART_BASE_IMAGE={worlds.BASE}\nTART_VM_USERNAME=admin\n"
        f"TART_VM_PASSWORD=admin\nTART_SSH_TIMEOUT=60000\nANTHROPIC_API_KEY={key}\n"
    )
    program = (
        'echo begins; cat CLAUDE.md; printf %s "$A"; printf %s "$ANTHROPIC_API_KEY" | wc -c; '
        "pwd; echo made > made; exit 6"
    )
    done = claw(
        *("run", "--root", str(tmp_path), "-g", "finance", "--secret", "ANTHROPIC_API_KEY"),
        *("--", "sh", "-c", program),
    )
    assert done.returncode == 6, done.stderr
    assert done.stdout.decode().split() == [*("begins", "our", "rulesb32", "/workspace/group")], (
        done.stdout
    )
    assert (group / "made").read_text() == "made\n"
    listed = json.loads(shared.tart("list", "--format", "json").stdout)
    assert [one["Name"] for one in listed if one["Source"] == "local"] == [worlds.BASE]
    assert (shared.processes(), entries(state)) == ({}, [])
    assert key not in json.dumps(shared.journal())


def test_a_machine_runs_as_it_should(shared: Simulator) -> None:
    async def work() -> str:
        async with session(shared, resources=Resources(cpus=5.5, memory=6 << 30)) as s:
            return s.name

    name = run(work())
    calls = [call for call in shared.journal() if name in call["argv"]]
    # Its address may be asked for before it has begun to run.
    verbs = [call["argv"][0] for call in calls if call["argv"][0] != "ip"]
    assert verbs[:3] == ["clone", "set", "run"]
    assert set(verbs) <= {"clone", "set", "run", "stop", "delete"}
    started = next(call for call in calls if call["argv"][0] == "run")
    assert started["sid"] == started["pid"] != os.getsid(0)
    assert started["argv"][2:] == ["--no-graphics", "--no-audio", "--no-clipboard"]
    assert calls[1]["argv"][2:] == ["--cpu", "6", "--memory", "6144"]
    for call in calls:
        assert "TART_NO_AUTO_PRUNE" in call["env"]
        assert "TART_VM_PASSWORD" not in call["env"]


def test_mounts_are_where_they_were_asked_for(shared: Simulator, tmp_path: Path) -> None:
    for name in ("open", "closed dir"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
        (tmp_path / name / "file").write_text(name)
        (tmp_path / name / "file").chmod(0o666)
    (tmp_path / "single").write_text("alone")
    mounts = [
        Mount(tmp_path / "open", "/workspace/group", writable=True, authorised=True),
        Mount(tmp_path / "closed dir", "/data/closed", authorised=True),
        Mount(tmp_path / "single", "/etc/single.conf", authorised=True),
    ]

    async def work() -> None:
        async with session(shared, mounts=mounts, workdir="/workspace/group") as s:
            assert await shell(s, "cat file /data/closed/file /etc/single.conf") == (
                "openclosed diralone"
            )
            assert (await output(s, "touch", "/data/closed/new"))[0].code != 0
            await shell(s, "echo changed > file; echo new > new")

    run(work())
    assert (tmp_path / "open" / "file").read_text() == "changed\n"
    assert (tmp_path / "open" / "new").exists()


def test_a_working_tree_is_copied_and_comes_back(shared: Simulator, tmp_path: Path) -> None:
    tree = tmp_path / "project"
    tree.mkdir()
    git(tree, "init", "-q")
    (tree / "file").write_text("before")
    (tree / "gone").write_text("x")
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "first")
    before = tree.stat().st_ino
    mount = Mount(tree, "/workspace/project", writable=True, authorised=True)

    async def work() -> None:
        async with session(shared, mounts=[mount], workdir="/workspace/project") as s:
            await shell(s, "echo after > file; rm gone; ln -s file link; chmod 700 file")
            assert (tree / "file").read_text() == "after\n"
            ended, _, _ = await output(s, "sh", "-c", "echo again >> file; exit 3")
            assert ended.code == 3

    run(work())
    assert (tree / "file").read_text() == "after\nagain\n"
    assert (tree / "link").readlink() == Path("file")
    assert not (tree / "gone").exists()
    assert tree.stat().st_ino != before
    assert git(tree, "log", "--oneline").endswith("first\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["project"]


def test_a_tree_that_does_not_come_back_is_as_it_was(shared: Simulator, tmp_path: Path) -> None:
    tree = tmp_path / "project"
    (tree / ".git").mkdir(parents=True)
    (tree / "file").write_text("before")
    mount = Mount(tree, "/workspace/project", writable=True, authorised=True)

    async def work() -> None:
        async with session(shared, mounts=[mount]) as s:
            await output(s, "sh", "-c", "cd /workspace && rm -rf project && ln -s / project")

    with pytest.raises(ArchiveError, match="project: it is a link to /"):
        run(work())
    assert (tree / "file").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["project"]


def test_secrets_are_in_no_argument_and_on_no_disk(shared: Simulator, tmp_path: Path) -> None:
    canary = f"canary-{secrets.token_hex(16)}"

    async def work() -> None:
        async with session(shared, secrets={"CANARY": canary}) as s:
            assert await shell(s, 'printf %s "$CANARY"') == canary
            await shell(s, "sync")
            disk = shared.disk(s.name)
            found = subprocess.run(["grep", "-rlF", canary, str(disk)], capture_output=True)
            assert found.stdout == b""
            arguments = subprocess.run(["ps", "-Aww", "-o", "args="], capture_output=True).stdout
            assert canary.encode() not in arguments

    run(work())
    assert canary not in json.dumps(shared.journal())
    state = default_state_directory()
    found = subprocess.run(["grep", "-rlF", canary, str(state)], capture_output=True)
    assert found.stdout == b""


def test_what_it_says_of_itself(shared: Simulator, tmp_path: Path) -> None:
    runtime = TartRuntime(worlds.settings(shared))

    async def work() -> None:
        described = await runtime.describe()
        assert (described.available, described.version) == (True, "2.32.1")
        assert described.isolation is Isolation.VM
        assert described.details["running"] == "0 macOS machines of at most 2"
        assert "not prepared by claw" in described.details["image"]
        found = await runtime.assess(Spec())
        assert [claim.name for claim in found.slots] == ["macos-vm", "vm-memory-mb"]  # type: ignore[union-attr]  # it is no refusal
        refused = await runtime.assess(Spec(image="nobody"))
        assert "no virtual machine nobody" in refused.reason  # type: ignore[union-attr]  # it is one
        refused = await runtime.assess(Spec(image="ghcr.io/example/none:latest"))
        assert refused.remedy == "tart pull ghcr.io/example/none:latest"  # type: ignore[union-attr]  # it is one
        odd = tmp_path / "a:b"
        odd.mkdir()
        refused = await runtime.assess(Spec(mounts=(Mount(odd, "/data", authorised=True),)))
        assert "colon" in refused.reason  # type: ignore[union-attr]  # it is one
        nested = (Mount(tmp_path, "/data"), Mount(tmp_path, "/data/deep/inner", writable=True))
        for mounts in (nested, nested[::-1], (nested[0], nested[0])):
            refused = await runtime.assess(Spec(mounts=mounts))
            assert "into another mount, /data" in refused.reason  # type: ignore[union-attr]  # it is one
        mounts = (Mount(tmp_path, "/data"), Mount(tmp_path, "/database"))
        assert isinstance(await runtime.assess(Spec(mounts=mounts)), Assessment)

    run(work())


def test_linux_guests_are_not_counted(shared: Simulator) -> None:
    shared.base("linux-base", "linux")

    async def one() -> str:
        async with session(shared, image="linux-base") as s:
            await asyncio.sleep(0)
            return await shell(s, "pwd")

    async def work() -> None:
        assert set(await asyncio.gather(*(one() for _ in range(4)))) == {"/home/admin\n"}

    run(work())


def test_ten_runs_on_two_places_start_in_their_order(
    shared: Simulator, state: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    mount = ("--mount", f"{tmp_path}:/log")
    hold = ("sh", "-c", "until [ -e /log/go ]; do sleep 0.05; done")
    running = []
    for number in range(10):
        running.append(start("run", "-q", "-r", "tart", *mount, "--", *hold))
        while len(list((state / "slots").glob("*.ticket"))) <= number:
            assert running[-1].poll() is None
    before = len(shared.calls("clone"))
    (tmp_path / "go").touch()
    assert [process.wait(100) for process in running] == [0] * 10
    for process in running:
        process.communicate()
    clones = [call["ppid"] for call in shared.journal() if call["argv"][0] == "clone"]
    order = [clones[-10:].index(process.pid) for process in running]
    assert before <= len(clones) - 8  # two were at work, eight were waiting
    # Two may begin at the same time, and then either of them first.
    assert all(abs(place - number) <= 1 for place, number in zip(order, range(10), strict=True))
    assert shared.processes() == {}


def test_a_closed_network_takes_softnet_and_the_guest_agent(
    world: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(**options: object) -> list[str]:
        async with session(world, **options) as s:  # type: ignore[arg-type]  # as given below
            assert await shell(s, "echo hi") == "hi\n"
            return next(call[1:] for call in world.calls("run") if call[0] == s.name)

    with pytest.raises(Refused, match="without softnet Tart cannot close"):
        run(work(network="none"))
    softnet = world.bin / "softnet"
    softnet.symlink_to(Path(worlds.__file__).parents[1] / "simulators" / "tart" / "softnet")
    assert "--net-softnet-block=0.0.0.0/0" in run(work(network="none"))
    arguments = run(work(settings={"allow": ["192.0.2.0/24", "198.51.100.7/32"]}))
    assert "--net-softnet-allow=192.0.2.0/24,198.51.100.7/32" in arguments


NETCAT = """#!/usr/bin/python3
# The simulated guest's server listens at its own address only.
import re, socket, threading
table = open("/proc/net/tcp").read()
address, = set(re.findall(r"([0-9A-F]{6}7F):0016 00000000:0000 0A", table))
link = socket.create_connection((socket.inet_ntoa(bytes.fromhex(address)[::-1]), 22))
import os, shutil
threading.Thread(target=shutil.copyfileobj, args=(open(0, "rb", 0), link.makefile("wb", 0))).start()
while data := link.recv(65536):
    os.write(1, data)
os._exit(0)
"""


@pytest.mark.parametrize("transport", ["ssh", "proxy", "agent"])
def test_a_guest_whose_user_may_not_become_root(
    world: Simulator, state: Path, tmp_path: Path, transport: str
) -> None:
    disk = world.disk(worlds.BASE)
    (disk / "etc/sudoers").write_text("admin ALL=(ALL) ALL\n")
    netcat = disk / "usr/local/bin/nc"
    netcat.parent.mkdir(parents=True, exist_ok=True)
    netcat.write_text(NETCAT)
    netcat.chmod(0o755)
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("here")
    target = "/workspace/group"
    mounts = [Mount(tmp_path, target, authorised=True, relocatable=True)]
    own = Mount(tmp_path, "/data", authorised=True)

    async def work() -> None:
        settings = {"transport": transport}
        async with session(world, settings=settings, mounts=mounts, workdir=target) as s:
            assert await shell(s, "cat file; pwd -L") == f"here/Users/admin{target}\n"
        with pytest.raises(RuntimeFault, match="nothing can be put at /data"):
            async with session(world, settings=settings, mounts=[own]):
                pass

    run(work())
    assert (world.processes(), entries(state)) == ({}, [])


@pytest.mark.parametrize("transport", ["ssh", "proxy", "agent"])
def test_no_call_of_tart_sees_a_secret_or_our_terminal(
    shared: Simulator, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CANARY", "TART_VM_PASSWORD"):
        monkeypatch.setenv(name, "admin")
    before = len(shared.journal())

    async def work() -> None:
        settings = {"transport": transport}
        async with session(shared, settings=settings, secrets={"CANARY": "admin"}) as s:
            assert await shell(s, "printf %s $CANARY") == "admin"

    run(work())
    calls = shared.journal()[before:]
    assert {"clone", "run", "delete"} <= {call["argv"][0] for call in calls}
    for call in calls:
        assert not {"CANARY", "TART_VM_PASSWORD"} & {*call["env"]}, call["argv"]
        assert call["sid"] != os.getsid(0), call["argv"]


@pytest.mark.parametrize("transport", ["proxy", "agent"])
def test_other_ways_into_a_guest(shared: Simulator, transport: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("up")

    async def work() -> None:
        async with session(shared, settings={"transport": transport}) as s:
            ended, out, err = await output(
                s, "sh", "-c", "cat; echo no >&2; exit 9", stdin=b"x" * 100_000
            )
            assert (ended.code, len(out), err) == (9, 100_000, "no\n")
            assert (await output(s, "sh", "-c", "kill -9 $$"))[0].code == 137
            assert (await output(s, "nope"))[0].code == 127
            ended, out, _ = await output(s, "sh", "-c", "sleep 600 & echo said; exit 5")
            assert (ended.code, out) == (5, "said\n")
            program = "(while :; do echo more >&2; sleep 0.1; done) & echo said; exit 4"
            ended, out, _ = await output(s, "sh", "-c", program)
            assert (ended.code, out) == (4, "said\n")
            assert (await output(s, "cat", stdin=None))[1] == ""
            ended, _, _ = await output(s, "sh", "-c", "sleep 0.1; exit 3", stdin=b"x" * 20_000_000)
            assert ended.code == 3
            await s.upload(tmp_path / "file", "/tmp/up")
            assert await shell(s, "cat /tmp/up") == "up"

    run(work())
