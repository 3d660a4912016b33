"""Streams, signals and sudden deaths of the simulated `container` are those of the real one."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.support import eventually
from simulators.container.world import IMAGE, World
from simulators.container_support import QUIET, error, listed, running, said

LEASE = ("sh", "-c", "cat >/dev/null")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A Mac with version 1.2.2."""
    with World(tmp_path / "mac") as world:
        yield world


def guests(world: World) -> int:
    """How many processes of guests are alive."""
    return list(world.processes().values()).count("guest")


def test_bytes_pass_unchanged_and_apart(world: World) -> None:
    name = running(world)
    data = os.urandom(3 << 20)
    done = world.run("exec", "-i", name, "sh", "-c", "tee /dev/stderr", stdin=data)
    assert (done.returncode, done.stdout == data, done.stderr == data) == (0, True, True)


def test_a_tree_goes_in_through_standard_input(world: World, tmp_path: Path) -> None:
    name = running(world)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(bytes(1 << 20))
    pack = ["tar", "-C", str(tmp_path), "-cf", "-", "tree"]
    tar = subprocess.run(pack, capture_output=True, check=True)
    argv = ("exec", "-i", name, "tar", "-x", "-o", "-p", "-f", "-", "-C", "/root")
    assert said(world, *argv, stdin=tar.stdout) == (0, "", "")
    assert (
        said(world, "exec", name, "wc", "-c", "/root/tree/file")[1] == "1048576 /root/tree/file\n"
    )


def test_standard_input_is_set_not_to_block_for_everybody(world: World) -> None:
    name = running(world)
    read, write = os.pipe()
    with world.start("exec", "-i", name, "cat", stdin=read) as process:
        assert eventually(lambda: bool(fcntl.fcntl(read, fcntl.F_GETFL) & os.O_NONBLOCK))
        os.write(write, b"in")
        os.close(write)
        assert process.communicate()[0] == b"in"
    os.close(read)


def test_input_is_kept_without_bound(world: World) -> None:
    name = running(world)
    with world.start("exec", "-i", name, "sleep", "1000") as process:
        assert process.stdin is not None
        process.stdin.write(bytes(8 << 20))  # far more than pipes hold, and nobody reads it
        process.stdin.close()
        assert process.poll() is None
        process.kill()


def test_a_guest_that_does_not_read_holds_up_the_output_of_all(world: World) -> None:
    name = running(world)
    with world.start("exec", "-i", name, "sh", "-c", "read _; exec sleep 1000") as deaf:
        assert deaf.stdin is not None
        deaf.stdin.write(b"\n" + bytes(1 << 20))
        deaf.stdin.flush()
        with world.start("exec", name, "echo", "hello") as other:
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(0.5)
            world.run("exec", "-d", name, "killall", "-KILL", "sleep")
            assert other.communicate()[0] == b"hello\n"


def test_a_slow_reader_holds_up_nobody_else(world: World) -> None:
    name = running(world)
    with world.start("exec", name, "dd", "if=/dev/zero", "bs=1M", "count=8") as slow:
        assert said(world, "exec", name, "echo", "hello")[1] == "hello\n"
        assert slow.poll() is None
        assert len(slow.communicate()[0]) == 8 << 20


def test_the_lease_ends_with_whoever_holds_it(world: World) -> None:
    argv = ("run", "-i", "--rm", *QUIET, "--name", "one", IMAGE, *LEASE)
    with world.start(*argv) as process:
        assert eventually(lambda: "one" in listed(world))
        world.run("exec", "-d", "one", "sleep", "1000")
        process.kill()
        assert eventually(lambda: (world.containers(), world.processes()) == ({}, {}))


def test_a_command_that_is_killed_leaves_the_guest_alone(world: World) -> None:
    name = running(world)
    script = "echo ready; cat; echo more; echo over >/root/over; sleep 1000"
    with world.start("exec", "-i", name, "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    with world.start("run", *QUIET, "--name", "two", IMAGE, "sleep", "1000") as process:
        assert eventually(lambda: "two" in listed(world))
        process.kill()
    # Its input has ended, and what it writes is lost.
    assert eventually(lambda: said(world, "exec", name, "cat", "/root/over")[1] == "over\n")
    assert set(listed(world)) == {"one", "two"}
    assert eventually(lambda: guests(world) == 3)


def test_what_a_killed_client_does_not_get_the_log_does_not(world: World) -> None:
    script = "echo before; until [ -e /root/go ]; do sleep 0.02; done; echo after; touch /root/done"
    argv = ("run", *QUIET, "--name", "one", IMAGE, "sh", "-c", f"{script}; sleep 1000")
    with world.start(*argv) as process:
        assert eventually(lambda: said(world, "logs", "one")[1] == "before\n")
        process.kill()
    said(world, "exec", "one", "touch", "/root/go")
    assert eventually(lambda: said(world, "exec", "one", "ls", "/root/done")[0] == 0)
    assert said(world, "logs", "one")[1] == "before\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_not_passed_on(world: World, number: int) -> None:
    name = running(world)
    with world.start("exec", name, "sh", "-c", "echo ready; exec sleep 1000") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        for _ in range(2):
            process.send_signal(number)
            line = process.stderr.readline().decode()
            assert line.startswith("failed to send signal: [")
            assert f'"signal": {number}' in line
            assert "missing signal in xpc message" in line
        process.send_signal(number)
        assert process.wait(30) == 1
        assert b"Received 3 SIGINT/SIGTERM's, forcefully exiting.\n" in process.stderr.read()
    assert guests(world) == 2


def test_signals_were_passed_on_before(tmp_path: Path) -> None:
    with World(tmp_path / "mac", version="0.12.3") as world:
        name = running(world)
        with world.start("exec", name, "sh", "-c", "echo ready; exec sleep 1000") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 143


def test_a_hang_up_ends_the_command_alone(world: World) -> None:
    name = running(world)
    with world.start("exec", name, "sh", "-c", "echo ready; exec sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == -signal.SIGHUP
    assert guests(world) == 2


def test_a_signal_before_the_guest_leaves_a_leftover(world: World) -> None:
    world.configure(boot_seconds=0.3)
    with world.start("run", "--rm", *QUIET, "--name", "one", IMAGE, "true") as process:
        assert eventually(lambda: "one" in world.containers())
        process.terminate()
        assert process.wait(30) == 143
    assert listed(world, "-a")["one"]["status"]["state"] == "stopped"
    assert world.journal()[0].exit == 143


def test_an_exec_is_killed_by_its_group(world: World) -> None:
    name = running(world)
    script = "echo $$; sleep 1000 & sleep 1000 & wait"
    with world.start("exec", name, "sh", "-c", script) as process:
        assert process.stdout is not None
        pid = process.stdout.readline().decode().strip()
        assert eventually(lambda: guests(world) == 4)
        assert said(world, "exec", name, "kill", "-KILL", f"-{pid}")[0] == 0
        assert process.wait(30) == 137
    assert eventually(lambda: guests(world) == 1)


def test_what_holds_the_output_open_delays_the_end(world: World) -> None:
    name = running(world)
    argv = ("exec", name, "sh", "-c", "sleep 1000 & echo started; exit 5")
    begun = time.monotonic()
    assert said(world, *argv) == (5, "started\n", "")
    assert time.monotonic() - begun >= 3


def test_a_reader_that_stalls_at_the_end_gets_an_error(world: World) -> None:
    world.configure(drain_seconds=0.2)
    name = running(world)
    # It fits into the pipes of helper and command, but not into that of the reader.
    argv = ("exec", name, "dd", "if=/dev/zero", "bs=1k", "count=100")
    with world.start(*argv) as process:
        assert process.wait(30) == 1
        assert process.stderr is not None
        assert b"Error: failed to exec process CancellationError()\n" in process.stderr.read()


def test_many_at_once(world: World) -> None:
    name = running(world)
    processes = [world.start("exec", "-i", name, "cat") for _ in range(12)]
    for number, process in enumerate(processes):
        assert process.stdin is not None
        process.stdin.write(f"{number}\n".encode())
    outs = [process.communicate()[0] for process in processes]
    assert outs == [f"{number}\n".encode() for number in range(12)]
    starts = [world.start("run", "-d", *QUIET, "--name", f"c{n}", IMAGE, "true") for n in range(6)]
    for process in starts:
        process.communicate()
        assert process.returncode == 0
    assert len(world.containers()) == 7


def test_an_unheard_of_container_is_not_run_in(world: World) -> None:
    running(world, argv=("true",))
    assert eventually(lambda: listed(world) == {})
    assert error(world, "exec", "one", "true") == "container one is not running"


def test_between_the_end_and_its_notice(world: World) -> None:
    world.configure(exit_seconds=30)
    running(world, argv=("true",))
    assert listed(world)["one"]["status"]["state"] == "running"
    assert error(world, "exec", "one", "true") == (
        'failed to create process in container (cause: "invalidState: "cannot exec: container is '
        'not running"")'
    )


def test_start_attaches(world: World) -> None:
    said(world, "create", "--name", "one", IMAGE, "sh", "-c", "cat; exit 4")
    assert said(world, "start", "-a", "-i", "one", stdin=b"in") == (4, "in", "")
    running(world, name="two")
    text = "attach is currently unsupported on already running containers"
    assert error(world, "start", "-a", "two") == text
