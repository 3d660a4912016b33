"""Checks of an instance's life: begin, work, several at once, files, snapshots."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path
from typing import Final

from claw_core import archive, unpack
from claw_core.capture import Capture
from claw_core.errors import ClawError
from claw_core.isolation import Isolation
from claw_core.model import Audit, Image, Resize, Spec
from claw_core.testing.contract.stage import Live, Stage
from claw_core.testing.contract.verdict import Broken, about


@about("execute")
async def an_instance_takes_commands(stage: Stage) -> None:
    """An instance that was started runs one command after the other, on one disk."""
    async with stage.instance() as live:
        file = f"{await live.home()}/file"
        written = await live.run(f"echo kept > {file}; echo said")
        if written.exit.code or written.out != b"said\n":
            raise Broken(f"`echo said` gave {written}", hook="start")
        read = await live.run("cat", file)
        if read.out != b"kept\n":
            raise Broken(f"a file of one command is not there for the next: {read}")


@about("execute")
async def commands_run_side_by_side(stage: Stage) -> None:
    """Several commands at once in one instance do not hold each other up, nor mix their output."""
    async with stage.instance() as live:
        # The first one waits for what the last one writes.
        flag = f"{await live.home()}/flag"
        waiting = f"until [ -e {flag} ]; do sleep 0.02; done; echo first"
        programs = (waiting, "echo second", f"echo third; : > {flag}")
        results = await asyncio.gather(*(live.run(program) for program in programs))
        said = [one.out for one in results]
        if said != [b"first\n", b"second\n", b"third\n"]:
            raise Broken(f"three commands at once wrote {said}")


@about("execute")
async def a_command_gets_its_environment(stage: Stage) -> None:
    """A command gets the spec's environment and its own on top, unchanged, and its directory."""
    odd = "two words 'quoted' \"$HOME\" *\tand\nlines"
    spec = Spec(env={"ONE": "spec", "TWO": "spec", "ODD": odd})
    async with stage.instance(spec) as live:
        done = await live.run(
            'printf "%s|" "$ONE" "$TWO" "$ODD"; pwd', env={"TWO": "command"}, workdir="/"
        )
        if done.out.decode() != f"spec|command|{odd}|/\n":
            raise Broken(f"it saw {done}")
        done = await live.run("printf", "%s|", "", "a b", "$HOME", "*", odd)
        if done.out.decode() != f"|a b|$HOME|*|{odd}|":
            raise Broken(f"arguments came as {done}")


@about("prepare")
async def instances_live_side_by_side(stage: Stage) -> None:
    """Several instances at once know nothing of each other, and end each by itself."""
    async with contextlib.AsyncExitStack() as stack:
        first, second, third = [await stack.enter_async_context(stage.instance()) for _ in "123"]
        each = (first, second, third)
        file = '"$HOME/name"'
        await asyncio.gather(*(live.run(f"echo {live.name} > {file}") for live in each))
        found = await asyncio.gather(*(live.run(f"cat {file}") for live in each))
        said = [one.out.decode().strip() for one in found]
        if said != [live.name for live in each]:
            raise Broken(f"three instances have the same disk: {said}")
        passing = await stage.claimed()
        await passing.begin()
        await passing.end()
        listed = await stage.runtime.list_instances(stage.ledger.install)
        if listed != {live.name for live in each}:
            raise Broken("the end of one instance took another with it", hook="teardown")
        done = await second.run("echo here")
        if done.out != b"here\n":
            raise Broken(f"after the end of another instance: {done}", hook="teardown")


@about("upload")
async def files_go_in_and_come_out(stage: Stage) -> None:
    """A tree that is uploaded and downloaded again is the same tree."""
    source, target = stage.case.directory / "tree", stage.case.directory / "back"
    (source / "empty").mkdir(parents=True)
    (source / "data").write_bytes(bytes(range(256)) * 4096)
    (source / "tool").write_text("#!/bin/sh\necho it runs\n")
    (source / "tool").chmod(0o755)
    (source / "a name\twith 'odd' characters").write_text("")
    (source / "link").symlink_to("data")
    target.mkdir()
    async with stage.instance() as live:
        # Below a directory that does not exist yet.
        place = f"{await live.home()}/new"
        chunks = archive.pack(source, "tree", lambda _: None)
        await live.runtime.upload(live.instance, chunks, place)
        done = await live.run(f"{place}/tree/tool")
        if done.out != b"it runs\n":
            raise Broken(f"a program that was uploaded: {done}")
        final = target / "tree"
        async with unpack.unpacking(final, "tree") as sink:
            await live.runtime.download(live.instance, f"{place}/tree", sink)
    if (sent := _tree(source)) != (got := _tree(final)):
        raise Broken(f"sent {sent}, and got {got}", hook="download")


@about("download")
async def what_is_not_there_is_not_downloaded(stage: Stage) -> None:
    """A download of what is not there fails with a ClawError, and the instance works on."""
    async with stage.instance() as live:
        try:
            await live.runtime.download(live.instance, "/no/such/file", Capture())
        except ClawError:
            pass
        else:
            raise Broken("it says that it has sent /no/such/file, which does not exist")
        done = await live.run("echo here")
        if done.out != b"here\n":
            raise Broken(f"after a download that failed: {done}", hook="execute")


@about("snapshot")
async def a_snapshot_keeps_the_disk_and_no_secret(stage: Stage) -> None:
    """A snapshot, where there are any, keeps the disk, and nothing delivered as a secret."""
    if not stage.runtime.relay.supports("snapshot"):
        return
    canary, label = secrets.token_hex(16), f"kit-{secrets.token_hex(4)}"
    for target in (Audit(label), Image(label)):
        async with stage.instance(secrets={"CANARY": canary}) as live:
            marker = f"{stage.case.disk or await live.home()}/kit-marker"
            done = await live.run(f"echo kept > {marker}")
            if done.exit.code:
                raise Broken(f"{marker} cannot be written (see `disk`): {done}", hook="execute")
            name = await live.runtime.snapshot(live.instance, target)
            stage.say(f"snapshot {name}")
        async with stage.instance(Spec(image=name)) as later:
            if (await later.run("cat", marker)).out != b"kept\n":
                raise Broken(f"{marker} is not in what was kept as {target}")
            await _search(stage, later, canary)


async def _search(stage: Stage, live: Live, canary: str) -> None:
    """Look for a secret on a disk, without giving it away."""
    places = stage.case.disk or await live.home()
    if (await stage.assessed(live.instance.spec)).isolation >= Isolation.SANDBOX:
        places += " /bin /etc /home /opt /root /run /srv /tmp /usr/local /var /workspace"
    program = f'read -r wanted; grep -rlF -e "$wanted" {places} 2> /dev/null'
    done = await live.run(program, stdin=f"{canary}\n".encode())
    if done.out:
        raise Broken(f"a secret is in {done.out.decode().split()}")


@about("execute")
async def a_terminal_is_one(stage: Stage) -> None:
    """A terminal, where it is offered, is the command's three streams and has its size."""
    assessment = await stage.assessed(Spec(image=stage.case.image))
    if not assessment.terminal:
        return
    async with stage.instance() as live:
        program = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo yes >&2; stty size; exit 7"
        done = await live.run(program, terminal=Resize(33, 77))
        words = done.out.split()
        if b"yes" not in words:
            raise Broken(f"its streams are no terminal: {done}")
        if done.err or done.exit.code != 7:
            raise Broken(f"all that it writes comes as stdout, and its exit code is 7: {done}")
        if b"33 77" not in done.out and b"not found" not in done.out:
            raise Broken(f"it should have 33 rows and 77 columns: {done}")


def _tree(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[name] = "directory"
        else:
            executable = bool(path.stat().st_mode & 0o100)
            found[name] = hash(path.read_bytes()), executable
    return found


CHECKS: Final = (
    an_instance_takes_commands,
    commands_run_side_by_side,
    a_command_gets_its_environment,
    instances_live_side_by_side,
    files_go_in_and_come_out,
    what_is_not_there_is_not_downloaded,
    a_snapshot_keeps_the_disk_and_no_secret,
    a_terminal_is_one,
)
