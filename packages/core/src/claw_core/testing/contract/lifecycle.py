"""Checks of an instance's life: begin, work, several at once, snapshots, terminals."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Final

from claw_core.errors import ClawError, SpentInstance
from claw_core.isolation import Isolation
from claw_core.model import Audit, Image, Resize, Spec
from claw_core.testing.contract.stage import Live, Stage
from claw_core.testing.contract.talk import Talk
from claw_core.testing.contract.verdict import Broken, about, duty

_ECHO: Final = "echo here; exec cat"
"""A command that says that it runs, and then whatever it is told."""


@about("execute")
async def an_instance_takes_commands(stage: Stage) -> None:
    """An instance that was started runs one command after the other, on one disk."""
    async with stage.instance() as live:
        try:
            await live.run(":")
        except ClawError as error:
            seen = f"right after it: {error}"
            raise Broken(seen, hook="start", promise=duty("start")) from error
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
        async with Talk.open(live, _ECHO) as first:
            async with Talk.open(live, _ECHO) as second:
                if not (await first.hears(b"here\n") and await second.hears(b"here\n")):
                    raise Broken(f"two commands that wait for input: {first}; {second}")
            # Leaving the block has cancelled the second one.
            first.say(b"there\n")
            if not _spent(second) and not await first.hears(b"there\n"):
                raise Broken(f"a command whose neighbour was cancelled: {first}")


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
        entering = (stack.enter_async_context(stage.instance()) for _ in "123")
        each = await asyncio.gather(*entering)
        files = [f"{await live.home()}/name" for live in each]
        for file, live in zip(files, each, strict=True):
            await live.run(f"echo {live.name} > {file}")
        found = [await live.run("cat", file) for file, live in zip(files, each, strict=True)]
        said = [one.out.decode().strip() for one in found]
        if said != [live.name for live in each]:
            raise Broken(f"three instances have the same disk: {said}")
        talk = await stack.enter_async_context(Talk.open(each[1], _ECHO))
        if not await talk.hears(b"here\n"):
            raise Broken(f"a command that waits for input: {talk}", hook="execute")
        passing = await stage.claimed()
        await passing.begin()
        await passing.end()
        talk.say(b"there\n")
        if not await talk.hears(b"there\n"):
            raise Broken(f"after the end of another instance, a command: {talk}", hook="teardown")
        listed = await stage.runtime.list_instances(stage.ledger.install)
        if listed != {live.name for live in each}:
            raise Broken("the end of one instance took another with it", hook="teardown")


@about("snapshot")
async def a_snapshot_keeps_the_disk_and_no_secret(stage: Stage) -> None:
    """A snapshot, where there are any, keeps the disk, and nothing delivered as a secret."""
    if not stage.runtime.relay.supports("snapshot"):
        return
    canary, label = secrets.token_hex(16), f"kit-{secrets.token_hex(4)}"
    for target in (Audit(label), Image(label)):
        async with stage.instance(secrets={"CANARY": canary}) as live:
            place = stage.case.disk or await live.home()
            done = await live.run(f"echo kept > {place}/kit-marker")
            if done.exit.code:
                raise Broken(f"{place} cannot be written to (see `disk`): {done}", hook="execute")
            name = await live.runtime.snapshot(live.instance, target)
            stage.say(f"snapshot {name}")
        async with stage.instance(Spec(image=name)) as later:
            place = stage.case.disk or await later.home()
            if (await later.run("cat", f"{place}/kit-marker")).out != b"kept\n":
                raise Broken(f"{place}/kit-marker is not in what was kept as {target}")
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
        if b"not found" in done.out:
            return  # no `stty` there
        if b"33 77" not in done.out:
            raise Broken(f"it should have 33 rows and 77 columns: {done}")
        program = (
            "until [ \"$(stty size)\" = '40 90' ]; do sleep 0.02; done; echo wide; cat; exit 8"
        )
        async with Talk.open(live, program, terminal=Resize(33, 77)) as talk:
            talk.control(Resize(40, 90))
            if not await talk.hears(b"wide"):
                raise Broken(f"it should have 40 rows and 90 columns by now: {talk}")
            talk.say(b"typed\n")
            talk.say(None)
            if not await talk.ends() or not await talk.hears(b"typed"):
                raise Broken(f"it should end with its input, which was `typed`: {talk}")


def _spent(talk: Talk) -> bool:
    """Whether a command that was cancelled has left its instance to nothing but teardown."""
    work = talk.work
    return not work.cancelled() and isinstance(work.exception(), SpentInstance)


CHECKS: Final = (
    an_instance_takes_commands,
    commands_run_side_by_side,
    a_command_gets_its_environment,
    instances_live_side_by_side,
    a_snapshot_keeps_the_disk_and_no_secret,
    a_terminal_is_one,
)
