"""A NanoClaw group runs on Apple's container, whatever its version, and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import claw_core
from claw_core.ledger import Ledger
from cli.support import CLAW, claw, entries
from runtime_apple.support import names, run, shell
from simulators.container.world import IMAGE, World


@pytest.fixture
def root(tmp_path: Path) -> Path:
    group = tmp_path / "nanoclaw/groups/chat"
    group.mkdir(parents=True)
    (group / "config.json").write_text(json.dumps({"containerConfig": {"image": IMAGE}}))
    (tmp_path / "nanoclaw/.env").write_text("CONTAINER_RUNTIME=container\nSECRET=of-the-file\n")
    return tmp_path / "nanoclaw"


@pytest.mark.parametrize(
    "version",
    ["0.12.3", "1.4.1", *(pytest.param(one, marks=pytest.mark.soak) for one in ("1.0.0", "1.2.2"))],
)
def test_a_group_end_to_end(world: World, root: Path, state: Path, version: str) -> None:
    world.configure(version=version)
    (root / "up").mkdir()
    (root / "up/file").write_text("uploaded\n")
    (root / "shared").mkdir()
    (root / "shared/file").write_text("mounted\n")
    program = (
        "cat /tmp/up/file /shared/file; echo >> /shared/file && exit 1; "
        "cd /workspace/group; read -r line; echo $line $SECRET > result; echo $line; exit 42"
    )
    done = claw(
        "run",
        "--root",
        root,
        "-g",
        "chat",
        "--json",
        "--secret",
        "SECRET",
        "--mount",
        f"{root}/shared:/shared",
        "--upload",
        f"{root}/up:/tmp/up",
        "--download",
        f"/workspace/group/result:{root}/result",
        "--",
        "sh",
        "-c",
        program,
        stdin=b"from outside\n",
    )
    assert done.returncode == 42, done.stderr
    document = json.loads(done.stdout)
    assert document["runtime"] == "apple"
    assert document["isolation"] == "vm"
    assert (root / "result").read_text() == "from outside of-the-file\n"
    assert (root / "groups/chat/result").read_text() == "from outside of-the-file\n"
    assert (root / "shared/file").read_text() == "mounted\n"
    assert names(world) == set()
    assert entries(state) == []
    assert "of-the-file" not in str([call.argv for call in world.journal()])


def test_output_streams_through_as_it_comes(world: World, state: Path) -> None:
    argv = ["run", "-q", "-r", "container", "--image", IMAGE, "--", "sh", "-c"]
    program = "echo first; read -r line; echo $line; echo last >&2; exit 7"
    with subprocess.Popen(
        [*CLAW, *argv, program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"first\n"
        out, err = process.communicate(b"second\n", timeout=60)
        assert (out, err, process.returncode) == (b"second\n", b"last\n", 7)
    assert names(world) == set()


def test_doctor_and_runtimes_tell_of_it(world: World) -> None:
    done = claw("doctor", "--json")
    rows = {one["subject"]: one for one in json.loads(done.stdout)}
    assert "1.2.2" in rows["runtime apple"]["detail"]
    found = json.dumps(rows)
    assert "claw image prepare apple" in found
    world.configure(server="unregistered")
    text = claw("runtimes").stdout.decode()
    assert "container system start --enable-kernel-install" in text


def test_what_is_kept_is_listed_entered_and_deleted(world: World, state: Path) -> None:
    argv = ("-q", "-r", "apple", "--image", IMAGE, "--snapshot", "always", "--keep", "always")
    done = claw("run", *argv, "--", "sh", "-c", "echo kept > ~/file; echo lost > /tmp/file")
    assert done.returncode == 0, done.stderr
    (name,) = names(world)
    assert (world.containers()[name].state, world.containers()[name].booted) == ("stopped", False)

    async def enter() -> None:
        (entry,) = Ledger.open(state).scan()
        async with claw_core.Router.open() as router, router.reopen(entry) as session:
            assert await shell(session, "cat ~/file /tmp/file; echo again > ~/file") == (
                "kept\nlost\n"
            )

    run(enter())
    shot = f"claw-audit:run-{name.removeprefix('claw-')}"
    assert shot in claw("snapshots", "list").stdout.decode()
    assert claw("snapshots", "delete", shot).returncode == 0
    assert world.run("image", "inspect", shot).returncode == 1
    claw("reap", name)
    assert (names(world), entries(state)) == (set(), [])
