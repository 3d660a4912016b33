"""Commands in a guest: their streams, their ends, their environment."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claw_core.errors import DeadlineExceeded, RuntimeFault, SpentInstance
from claw_core.model import Control, Resize, Signal
from claw_runtime_tart import ssh
from claw_runtime_tart.remote import HELD, Remote
from runtime_tart import worlds
from runtime_tart.support import gather, output, run, session, shell
from simulators.tart.world import Simulator

ODD = "a'b\"c\\d $HOME `id`\n\ttwo \\n %s é \udcff"


def test_streams_codes_and_directories(shared: Simulator) -> None:
    async def work() -> None:
        async with session(shared, env={"ODD": ODD}) as s:
            ended, out, err = await output(
                s, "sh", "-c", "cat; echo no >&2; exit 9", stdin=b"in\0put"
            )
            assert (ended.code, out, err) == (9, "in\0put", "no\n")
            codes = (0, 1, 2, 125, 126, 127, 128, 200, 255)
            found = await gather(*(output(s, "sh", "-c", f"exit {code}") for code in codes))
            assert tuple(ended.code for ended, _, _ in found) == codes
            ended, _, err = await output(s, "sh", "-c", "kill -9 $$")
            assert (ended.code, ended.signal, err) == (137, 9, "")
            assert await shell(s, 'printf %s "$ODD"') == ODD.replace("\udcff", "\ufffd")
            assert await shell(s, 'printf %s "$ODD"', env={"ODD": "mine"}) == "mine"
            assert await shell(s, "echo $l; env | grep claw; :", env={"l": "long"}) == "long\n"
            assert (await output(s, "say"))[0].code == 127
            assert await shell(s, "pwd", workdir="/tmp") == "/tmp\n"
            assert await shell(s, "pwd") == "/Users/admin\n"
            assert "/opt/homebrew/bin" in await shell(s, "echo $PATH")
            assert await shell(s, "echo $PATH", env={"PATH": "/usr/bin:/bin"}) == "/usr/bin:/bin\n"
            _, out, _ = await output(s, "printf", "%s|", *ODD.split(" "))
            assert out == "|".join([*ODD.replace("\udcff", "\ufffd").split(" "), ""])
            assert await shell(s, "cat", stdin=None) == ""

    run(work())


@pytest.mark.parametrize(
    ("argv", "code", "why"),
    [
        (("nope",), 127, "nope: command not found"),
        (("/no/such",), 127, "/no/such: command not found"),
        (("/etc/passwd",), 126, "/etc/passwd: cannot be executed"),
        (("/etc",), 126, "/etc: cannot be executed"),
    ],
)
def test_what_cannot_be_started_is_told(
    shared: Simulator, argv: tuple[str, ...], code: int, why: str
) -> None:
    async def work() -> None:
        async with session(shared) as s:
            ended, out, err = await output(s, *argv)
            assert (ended.code, out, err) == (code, "", "")
            assert why in str(ended.reason)
            with pytest.raises(RuntimeFault, match="cannot start in '/no/such'"):
                await output(s, "true", workdir="/no/such")
            assert await shell(s, "echo here") == "here\n"

    run(work())


def test_much_goes_in_and_out_unchanged(shared: Simulator) -> None:
    data = bytes(range(256)) * 32_768

    async def work() -> None:
        async with session(shared) as s:
            got = hashlib.sha256()

            async def sink(chunk: bytes) -> None:
                got.update(chunk)

            await s.run(["cat"], stdin=data, stdout=sink)
            assert got.hexdigest() == hashlib.sha256(data).hexdigest()

    run(work())


def test_a_slow_reader_gets_everything_and_memory_stays_small(
    shared: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = 0

    class Watched(Remote):
        def data_received(self, data: bytes, datatype: int | None) -> None:
            nonlocal held
            super().data_received(data, datatype)
            waiting = getattr(self._channel, "_recv_buf", ())  # asyncssh's own
            held = max(held, self._held + sum(len(chunk) for chunk, _ in waiting))

    monkeypatch.setattr(ssh, "Remote", Watched)
    got = 0

    async def slow(data: bytes) -> None:
        nonlocal got
        got += len(data)
        await asyncio.sleep(0.001)

    async def work() -> None:
        async with session(shared) as s:
            assert (await s.run(["head", "-c", "40000000", "/dev/zero"], stdout=slow)).code == 0

    run(work())
    assert got == 40_000_000
    assert held < 4 * HELD


def test_commands_beyond_what_a_server_takes_wait(world: Simulator) -> None:
    configuration = world.disk(worlds.BASE) / "etc/ssh/sshd_config"
    configuration.write_text(f"MaxSessions 2\n{configuration.read_text()}")

    async def work() -> None:
        async with session(world) as s:
            found = await gather(*(shell(s, f"sleep 0.1; echo {n}") for n in range(12)))
            assert [int(out) for out in found] == [*range(12)]

    run(work())


def test_a_descendant_that_keeps_the_output_open_does_not_hold_the_end(shared: Simulator) -> None:
    async def work() -> None:
        async with session(shared) as s:
            program = "(while :; do echo more; sleep 0.1; done) & echo said; exit 4"
            ended, out, _ = await output(s, "sh", "-c", program)
            assert ended.code == 4
            assert "said\n" in out
            ended, out, _ = await output(s, "sh", "-c", "sleep 600 & echo said; exit 5")
            assert (ended.code, out) == (5, "said\n")

    run(work())


def test_a_descendant_that_writes_for_ever_does_not_hold_the_end(
    shared: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a limit it would, for as long as it is faster than its reader."""
    monkeypatch.setattr(ssh, "LEFT", 1 << 20)

    async def work() -> None:
        async with session(shared) as s:
            first = bytearray()

            async def sink(data: bytes) -> None:
                first.extend(data[: 1024 - len(first)])
                await asyncio.sleep(0.002)

            ended = await s.run(["sh", "-c", "echo said; yes & exit 4"], stdout=sink)
            assert (ended.code, bytes(first[:5])) == (4, b"said\n")

    run(work())


def test_more_terminals_than_a_connection_has_channels(shared: Simulator) -> None:
    async def work() -> None:
        async with session(shared) as s:
            commands = [
                output(s, "sh", "-c", "sleep 0.1; tty", terminal=Resize(20, 50))
                for _ in range(2 * ssh.CHANNELS)
            ]
            found = await gather(*commands)
            assert all("/dev/pts" in out for _, out, _ in found)
            assert await shell(s, "ls -A /tmp") == ""

    run(work())


def test_an_input_that_fails_is_the_callers_failure(shared: Simulator) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise OSError(5, "it cannot be read")

    async def work() -> None:
        async with session(shared) as s:
            with pytest.raises(OSError, match="it cannot be read"):
                await output(s, "cat", stdin=broken())

    run(work())


def test_a_terminal_with_odd_environment(shared: Simulator) -> None:
    async def work() -> None:
        async with session(shared, env={"ODD": ODD}) as s:

            async def control() -> AsyncIterator[Control]:
                await asyncio.sleep(0)
                yield Resize(40, 100)

            ended, out, err = await output(
                *(
                    s,
                    "sh",
                    "-c",
                    "tty; stty size; printf '<%s>' \"$ODD\"; read x; stty size; exit 3",
                ),
                terminal=Resize(20, 50),
                stdin=b"\r",
                control=control(),
            )
            assert (ended.code, err) == (3, "")
            assert "/dev/pts" in out
            assert "20 50" in out or "40 100" in out
            assert "a'b\"c\\d $HOME `id`" in out
            found = await shell(s, "ls -A /tmp")
            assert ".claw" not in found

    run(work())


def test_a_terminal_waits_for_its_program(
    shared: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "_FIFO", f"sleep 0.3; {ssh._FIFO}")

    async def work() -> None:
        async with session(shared) as s:
            ended, out, _ = await output(s, "sh", "-c", "echo x; exit 3", terminal=Resize(20, 50))
            assert (ended.code, out) == (3, "x\r\n")

    run(work())


def test_signals_reach_the_process_group(shared: Simulator) -> None:
    async def work() -> None:
        async with session(shared) as s:
            ready = asyncio.Event()

            async def control() -> AsyncIterator[Control]:
                await ready.wait()
                yield Signal(signal.SIGUSR1)

            async def sink(chunk: bytes) -> None:
                ready.set()

            program = "trap 'exit 7' USR1; echo ready; while :; do sleep 0.02; done"
            ended = await s.run(["sh", "-c", program], stdout=sink, control=control())
            assert ended.code == 7

    run(work())


def test_what_is_cut_short_spends_the_instance(shared: Simulator, tmp_path: Path) -> None:
    async def work() -> None:
        async with session(shared) as s:
            with pytest.raises(DeadlineExceeded):
                await s.run(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], timeout=0.5)
            with pytest.raises(SpentInstance, match="leave the session"):
                await s.run(["true"])

    run(work())


def test_files_go_in_and_come_out(shared: Simulator, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub dir").mkdir(parents=True)
    (tree / "sub dir" / "-rf é").write_bytes(bytes(range(256)))
    (tree / "link").symlink_to("sub dir/-rf é")

    async def work() -> None:
        async with session(shared) as s:
            await s.upload(tree, "/tmp/new/place")
            await s.download("/tmp/new/place", tmp_path / "back")

    run(work())
    assert (tmp_path / "back" / "sub dir" / "-rf é").read_bytes() == bytes(range(256))
    assert (tmp_path / "back" / "link").is_symlink()
