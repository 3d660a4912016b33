"""Images: prepared whole or not at all, and guests that can be told from others."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from claw_core.errors import RuntimeFault
from claw_core.model import Audit
from claw_runtime_tart import identity
from cli.support import claw, entries, eventually, start
from runtime_tart import worlds
from runtime_tart.support import run, session, shell
from simulators.tart.world import Simulator

RECIPE = """
image = "prepared"
[base]
tart = "ghcr.io/example/base:latest"
[runtimes.tart]
pull = true
[variables]
GREETING = "hello"
[[steps]]
name = "a tool"
run = '''
mkdir -p "$HOME/.local/bin"
printf '#!/bin/sh\\necho %s\\n' "$GREETING" > "$HOME/.local/bin/tool"
chmod +x "$HOME/.local/bin/tool"
'''
[[verify]]
name = "the tool"
run = "tool | grep $GREETING"
"""


@pytest.fixture
def recipe(world: Simulator, tmp_path: Path) -> Path:
    world.image("ghcr.io/example/base:latest", "darwin")
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def prepare(recipe: Path, *options: str, plan: str = "") -> int:
    done = claw("image", "prepare", "tart", str(recipe), *options, env={"CLAW_FAILPOINT": plan})
    print(done.stderr.decode())
    return done.returncode


async def used(world: Simulator) -> str:
    async with session(world, image="prepared") as s:
        return await shell(s, "tool; sudo cat /etc/ssh/sshd_config.d/000-claw.conf")


def test_an_image_is_prepared_sealed_and_used(world: Simulator, recipe: Path, state: Path) -> None:
    assert prepare(recipe) == 0
    assert world.vms() == {worlds.BASE, "prepared"}
    assert "PasswordAuthentication no" in run(used(world))
    assert identity.key_path().stat().st_mode & 0o777 == 0o600
    known = json.loads((world.home / "vms" / "prepared" / "claw.json").read_text())
    assert known["host_key"].startswith("ssh-ed25519 ")
    notes: list[str] = []

    async def told() -> None:
        async with session(world, image="prepared", listener=lambda e: notes.append(str(e))):
            pass

    run(told())
    assert not any("was not prepared" in note for note in notes)
    assert not any("admin" in " ".join(call["argv"]) for call in world.journal())
    # Again, with another greeting: it takes the place of the first one.
    assert prepare(recipe, "--set", "GREETING=again") == 0
    assert run(used(world)).startswith("again\n")
    assert world.vms() == {worlds.BASE, "prepared"}
    assert (world.processes(), entries(state)) == ({}, [])


def test_a_guest_that_is_somebody_else_is_refused(
    world: Simulator, recipe: Path, state: Path
) -> None:
    assert prepare(recipe) == 0
    record = world.home / "vms" / "prepared" / "claw.json"
    known = json.loads(record.read_text())
    other = identity.public_key().rpartition(" ")[0]
    record.write_text(json.dumps({**known, "host_key": other}))
    with pytest.raises(RuntimeFault, match="host key is not that of its image"):
        run(used(world))
    record.write_text("{")
    with pytest.raises(RuntimeFault, match=r"claw.json cannot be read"):
        run(used(world))
    record.write_text(json.dumps(known))
    os.rename(identity.key_path(), f"{identity.key_path()}.gone")
    with pytest.raises(RuntimeFault, match="the key that opens the image's guests is not at"):
        run(used(world))
    identity.public_key()
    with pytest.raises(RuntimeFault, match="does not let admin in with our key"):
        run(used(world))
    assert (world.processes(), entries(state)) == ({}, [])


@pytest.mark.parametrize("how", ["step", "verify"])
def test_a_step_that_fails_leaves_no_image(
    world: Simulator, recipe: Path, state: Path, how: str
) -> None:
    text = RECIPE if how == "verify" else RECIPE.replace("mkdir -p", "false && mkdir -p")
    recipe.write_text(text.replace("tool | grep", "false | grep") if how == "verify" else text)
    assert prepare(recipe) == 125
    assert world.vms() == {worlds.BASE}
    assert (world.processes(), entries(state)) == ({}, [])


@pytest.mark.parametrize("point", ["tart.sealed", "tart.pre-save", "tart.saved"])
def test_a_kill_while_it_is_saved_leaves_the_old_or_the_new_one(
    world: Simulator, recipe: Path, state: Path, point: str
) -> None:
    assert prepare(recipe) == 0
    assert prepare(recipe, "--set", "GREETING=new", plan=f"{point}=kill") == -signal.SIGKILL
    assert eventually(lambda: claw("reap").returncode == 0 and entries(state) == [], 60)
    assert world.vms() == {worlds.BASE, "prepared"}
    assert run(used(world)).split("\n")[0] in {"hello", "new"}
    assert eventually(lambda: world.processes() == {}, 20)


def test_a_kill_of_a_step_leaves_nothing(world: Simulator, recipe: Path, state: Path) -> None:
    recipe.write_text(RECIPE.replace("mkdir -p", "sleep 600 && mkdir -p"))
    with start("image", "prepare", "tart", str(recipe)) as process:
        assert eventually(lambda: len(world.running()) == 1, 30)
        process.kill()
        process.communicate()
    assert eventually(lambda: claw("reap").returncode == 0 and entries(state) == [], 60)
    assert world.vms() == {worlds.BASE}
    assert eventually(lambda: world.processes() == {}, 20)


def test_an_audit_has_the_disk_and_no_secret(world: Simulator, state: Path) -> None:
    async def work() -> str:
        async with session(world, secrets={"CANARY": "very-secret-canary"}) as s:
            await shell(s, "echo kept > ~/file")
            return await s.snapshot(Audit("Finance, 2026"))

    name = run(work())
    assert name.startswith("claw-snapshot-finance-2026-")
    assert world.vms() == {worlds.BASE, name}
    assert (world.disk(name) / "Users" / "admin" / "file").read_text() == "kept\n"
    assert world.processes() == {}
