"""claw on a simulated Tart beside `tart`, `ssh` and `scp`: `python benchmarks/tart_lifecycle.py`.

Takes root and OpenSSH, and no Mac: it shows what claw adds to machines that take the configured
time to boot. Both sides log in with the same key, so neither pays for a password.
"""

from __future__ import annotations

import asyncio
import functools
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import attrs

import claw_core
from claw_core.session import Session
from claw_runtime_tart import identity
from claw_runtime_tart.identity import Identity
from claw_runtime_tart.settings import IMAGE
from measure import middle, show, timed, wall
from simulators.tart.disk import ACCOUNTS
from simulators.tart.world import Simulator, missing

ROUNDS = 11
DELAYS = {"t_clone": 0.05, "t_start": 0.2, "t_lease": 0.8, "t_stop": 0.2}
LISTENS = 1.2
"""Seconds until the first machine's SSH server listens; every round it is a bit later, so that
nobody's polling happens to be in step with it."""
LATER = 0.037
USER = "admin"


def main() -> None:
    """Print ratios, each of medians of one interleaved run."""
    if why := missing():
        print(f"tart: not measured, {why}")
        return
    with tempfile.TemporaryDirectory() as state, Simulator(**DELAYS, t_ssh=LISTENS) as world:
        Path(state).chmod(0o700)
        os.environ |= {**world.environment, "CLAW_STATE": state}
        seal(world)
        asyncio.run(everything(world))


def seal(world: Simulator) -> None:
    """Make an image as `claw image prepare tart` does, whose guests let in our key."""
    disk = world.base(IMAGE)
    key = identity.public_key()
    _, user, group, home, _ = ACCOUNTS["darwin"]
    directory = disk / home.lstrip("/") / ".ssh"
    keys = directory / "authorized_keys"
    directory.mkdir()
    keys.write_text(f"{key}\n")
    for path, mode in ((directory, 0o700), (keys, 0o600)):
        path.chmod(mode)
        os.chown(path, user, group)
    host_key = (disk / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
    Identity(host_key.strip(), key, USER).save(world.home / "vms" / IMAGE)


async def everything(world: Simulator) -> None:
    """Measure with one open router, as a program does that embeds claw."""
    table = {"leases": str(world.leases)}
    config = claw_core.Config.of(claw_core.Settings(runtimes={"tart": table}))
    async with claw_core.Router.open(config=config) as router:
        await lifecycle(world, router)
        async with router.session(runtime="tart") as session:
            hand = Hand(str(world.lease(session.name)))
            with tempfile.TemporaryDirectory() as folder:
                await executions(session, hand)
                await configurations(session, hand, Path(folder))
                await many_files(session, hand, Path(folder))


async def lifecycle(world: Simulator, router: claw_core.Router) -> None:
    """One `true` in a machine of its own, and nothing left."""

    async def session() -> None:
        async with router.session(runtime="tart") as opened:
            assert (await opened.run(["true"])).code == 0

    await timed(session)  # modules are loaded once in a process
    ours, theirs = [], []
    for number in range(ROUNDS):
        world.knobs(t_ssh=LISTENS + number * LATER)
        ours.append(await timed(session))
        theirs.append(by_hand(world))
    print(f"clone, boot until sshd listens, ssh, stop, delete: {middle(theirs):.2f} s")
    added = middle([one - other for one, other in zip(ours, theirs, strict=True)])
    show("added by a whole session, verified gone", added, 0.3, "s")


def by_hand(world: Simulator) -> float:
    """The same with the commands themselves, by somebody who sees at once that sshd listens."""
    name = f"by-hand-{secrets.token_hex(4)}"
    started = time.perf_counter()
    world.tart("clone", IMAGE, name).check_returncode()
    with world.run(name) as process:
        wall(Hand(world.address(name)).ssh("true"))()
        world.tart("stop", name).check_returncode()
        process.communicate()
    world.tart("delete", name).check_returncode()
    return time.perf_counter() - started


async def executions(session: Session, hand: Hand) -> None:
    """A further command in a machine that runs."""
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(await timed(functools.partial(session.run, ["true"])))
        theirs.append(wall(hand.ssh("true"))())
    print(f"a further command: {middle(ours) * 1000:.1f} ms, ssh {middle(theirs) * 1000:.0f} ms")
    show("a further command / ssh", middle(ours) / middle(theirs), 1 / 20)


async def configurations(session: Session, hand: Hand, folder: Path) -> None:
    """An agent's configuration: five files of 3 KB."""
    source = folder / "configuration"
    source.mkdir()
    for number in range(5):
        (source / f"{number}.json").write_bytes(secrets.token_bytes(3000))
    ours, theirs = [], []
    for number in range(ROUNDS):
        upload = functools.partial(session.upload, source, f"/tmp/ours{number}")
        ours.append(await timed(upload))
        theirs.append(sum(wall(argv)() for argv in hand.sent(source, f"theirs{number}")))
    print(f"5 files: {middle(ours) * 1000:.1f} ms, tar, scp, ssh {middle(theirs) * 1000:.0f} ms")
    show("upload of 5 files of 3 KB / tar, scp, ssh", middle(ours) / middle(theirs), 1 / 20)


async def many_files(session: Session, hand: Hand, folder: Path) -> None:
    """A project of 5,000 files of 4 KB."""
    source = folder / "project"
    source.mkdir()
    for number in range(5000):
        (source / f"{number}").write_bytes(secrets.token_bytes(4096))
    ours, theirs = [], []
    for _ in range(3):
        ours.append(await timed(functools.partial(session.upload, source, "/tmp/ours")))
        theirs.append(wall(hand.scp(source, "/tmp/theirs"))())
        await session.run(["rm", "-r", "/tmp/ours", "/tmp/theirs"])
    print(f"5,000 files: {middle(ours):.2f} s, scp -r {middle(theirs):.2f} s")
    show("upload of 5,000 files of 4 KB / scp -r", middle(ours) / middle(theirs), 1.0)


@attrs.frozen
class Hand:
    """Commands as one writes them in a script: a process and a connection each.

    Attributes:
        address: of the guest.
    """

    address: str

    def options(self) -> list[str]:
        """What `ssh` and `scp` are told."""
        settings = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
        }
        pairs = [f"-o{name}={value}" for name, value in settings.items()]
        return ["-F", "none", "-i", str(identity.key_path()), *pairs]

    def ssh(self, command: str) -> list[str]:
        """Run a command in the guest."""
        return ["ssh", "-n", *self.options(), f"{USER}@{self.address}", command]

    def scp(self, source: Path, target: str) -> list[str]:
        """Copy a file or directory into the guest."""
        return ["scp", "-q", "-r", *self.options(), str(source), f"{USER}@{self.address}:{target}"]

    def sent(self, source: Path, name: str) -> Iterator[list[str]]:
        """Send a directory as an archive, as popular guides do."""
        archive = source.with_name(f"{name}.tar.gz")
        yield ["tar", "-czf", str(archive), "-C", str(source), "."]
        yield self.scp(archive, f"/tmp/{archive.name}")
        unpack = f"mkdir /tmp/{name} && tar -xzf /tmp/{archive.name} -C /tmp/{name}"
        yield self.ssh(f"{unpack} && rm /tmp/{archive.name}")


if __name__ == "__main__":
    main()
