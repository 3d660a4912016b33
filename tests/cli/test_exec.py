"""`claw exec`: further commands in an instance whose owner is another process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import pytest

from cli.console import Console
from cli.support import claw, entries, eventually, marked, start

OWNER = """
import asyncio, os, sys, time
from claw_core import Config, Router, Settings

async def main():
    settings = Settings(runtimes={"local": {"engine": sys.argv[1]}})
    async with Router.open(config=Config.of(settings)) as router:
        async with router.session(runtime="local", env={"A": "session", "B": "session"}) as session:
            print(session.name, flush=True)
            while await asyncio.to_thread(sys.stdin.readline) == "fork\\n":
                if os.fork() == 0:
                    time.sleep(60)
                    os._exit(0)
                print("forked", flush=True)
    record = session.record
    print(record.exit, sorted(record.seconds), record.teardown, flush=True)

asyncio.run(main())
"""


class Owner:
    """Another program that has claw embedded, with an open session."""

    def __init__(self, engine: str = "namespaces", state: Path | None = None) -> None:
        self.env = {"CLAW_STATE": str(state)} if state else {}
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **self.env},
            start_new_session=True,
        )
        self.name = self.line()
        assert self.name.startswith("claw-")

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def exec(
        self, *command: str, options: tuple[str, ...] = (), stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        return claw("exec", *options, self.name, "--", *command, stdin=stdin, env=self.env)

    def start(self, marker: str) -> subprocess.Popen[bytes]:
        """Start a command that ignores every polite request, and wait until it runs."""
        script = f"# {marker}\ntrap '' HUP INT TERM; echo ready; while :; do sleep 1; done"
        client = start("exec", self.name, "--", "sh", "-c", script)
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        return client

    def end(self) -> str:
        """End the session, and return what its record says."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"end\n")
        self.process.stdin.flush()
        return self.line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture(params=["namespaces", "guard"])
def owner(request: pytest.FixtureRequest) -> Iterator[Owner]:
    with Owner(request.param) as one:
        yield one


@pytest.fixture
def marker() -> str:
    return f"exec-{uuid.uuid4().hex}"


def test_the_streams_are_separate_and_byte_exact(owner: Owner) -> None:
    data = random.randbytes(3 << 20) + bytes(range(256))
    done = owner.exec("sh", "-c", "echo err >&2; cat; exit 7", stdin=data)
    assert (done.returncode, done.stdout == data, done.stderr) == (7, True, b"err\n")


def test_codes_and_signals_come_through(owner: Owner) -> None:
    for code in (0, 125, 255):
        assert owner.exec("sh", "-c", f"exit {code}").returncode == code
    assert owner.exec("sh", "-c", "kill -9 $$").returncode == 137
    done = owner.exec("no-such-command")
    assert (done.returncode, b"no-such-command" in done.stderr) == (127, True)
    done = owner.exec("sh", "-c", "echo part; exec sleep 600", options=("--timeout", "0.5"))
    assert (done.returncode, done.stdout) == (124, b"part\n")
    assert b"timeout of 0.5 s" in done.stderr
    done = owner.exec("true", options=("-w", "/no/such/place"))
    assert done.returncode == 125
    assert b"what to do: create the directory first" in done.stderr
    assert done.stderr.count(owner.name.encode()) == 1


def test_environment_and_directory(owner: Owner) -> None:
    done = owner.exec("sh", "-c", "echo $A $B; pwd", options=("-e", "B=mine", "-w", "/usr"))
    assert done.stdout == b"session mine\n/usr\n"


def test_it_is_the_same_instance_and_leaves_no_trace_in_the_record(owner: Owner) -> None:
    assert owner.exec("sh", "-c", "echo kept > $HOME/file").returncode == 0
    assert owner.exec("sh", "-c", "cat $HOME/file; exit 3").stdout == b"kept\n"
    assert owner.end() == "None ['prepare', 'start', 'teardown'] gone"


def test_two_at_once_do_not_wait_for_each_other(owner: Owner) -> None:
    # Each waits for what the other one makes.
    script = "mkdir $HOME/{0}; until [ -d $HOME/{1} ]; do sleep 0.05; done; echo {0}"
    with ThreadPoolExecutor(2) as pool:
        scripts = [script.format(*pair) for pair in (("x", "y"), ("y", "x"))]
        done = pool.map(lambda one: owner.exec("sh", "-c", one).stdout, scripts)
        assert list(done) == [b"x\n", b"y\n"]


def test_the_command_ends_with_a_client_that_is_killed(owner: Owner, marker: str) -> None:
    with owner.start(marker) as client:
        assert set(marked(marker)) > {client.pid}
        client.kill()
        client.communicate()
    assert eventually(lambda: not marked(marker)), marked(marker)
    assert owner.exec("true").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_before_the_client_ends(number: int, marker: str) -> None:
    with Owner() as owner:
        with owner.start(marker) as client:
            client.send_signal(number)
            _, said = client.communicate(timeout=30)
            assert (client.returncode, said) == (128 + number, b"")
            assert marked(marker) == []
        assert owner.exec("true").returncode == 0


def test_a_reader_that_is_gone_ends_the_command(owner: Owner, marker: str) -> None:
    with start("exec", owner.name, "sh", "-c", f"# {marker}\nyes") as client:
        assert client.stdout is not None
        client.stdout.read(10)
        client.stdout.close()
        assert client.wait(30) == 141
    assert eventually(lambda: not marked(marker)), marked(marker)


def test_the_end_of_the_session_is_the_end_of_its_commands(owner: Owner, marker: str) -> None:
    with owner.start(marker) as client:
        assert owner.end() == "None ['prepare', 'start', 'teardown'] gone"
        _, said = client.communicate(timeout=30)
    assert client.returncode == 125
    assert b"the session has ended, and the command with it" in said
    assert marked(marker) == []


def test_killing_the_owner_ends_the_command_and_leaves_no_socket(
    owner: Owner, marker: str, state: Path
) -> None:
    with owner.start(marker) as client:
        assert owner.process.stdin is not None
        owner.process.stdin.write(b"fork\n")
        owner.process.stdin.flush()
        assert owner.line() == "forked"  # a child that outlives it, and must not hold a stream
        assert [name for name in entries(state) if name.endswith(".sock")]
        owner.process.kill()
        owner.process.wait()
        _, said = client.communicate(timeout=30)
    assert client.returncode == 125
    assert b"the session has ended" in said
    assert eventually(lambda: not marked(marker)), marked(marker)
    done = owner.exec("true")
    assert done.returncode in {2, 125}  # it is gone, or going
    assert eventually(lambda: entries(state) == [], 20), entries(state)
    assert owner.exec("true").returncode == 2
    os.killpg(owner.process.pid, signal.SIGKILL)  # the child


def test_a_run_is_reached_as_well_and_its_own_code_stays(state: Path) -> None:
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "claw_core",
            "run",
            "-q",
            "--",
            "sh",
            "-c",
            "echo up; read a; exit 5",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"up\n"
        assert claw("exec", "claw-", "sh", "-c", "exit 9").returncode == 9
        run.communicate(b"\n", timeout=30)
    assert run.returncode == 5
    assert '"exit":5' in (state / "runs.jsonl").read_text().splitlines()[-1]


def test_an_instance_is_named_by_what_is_unique(state: Path) -> None:
    with Owner() as one, Owner() as other:
        for name in (one.name, one.name[:-1], one.name.rpartition("-")[2]):
            done = claw("exec", name, "sh", "-c", "echo $CLAW_INSTANCE")
            assert done.stdout.decode().strip() == one.name
        done = claw("exec", "claw-", "true")
        assert done.returncode == 2
        assert b"'claw-' is ambiguous" in done.stderr
        assert one.name.encode() in done.stderr
        assert other.name.encode() in done.stderr
        for name in ("", "no-such-instance", f"{one.name}0"):
            done = claw("exec", name, "true")
            assert done.returncode == 2
            assert b"there is no instance" in done.stderr


def test_a_command_is_needed_unless_it_is_a_shell() -> None:
    done = claw("exec", "claw-")
    assert done.returncode == 2
    assert b"no command given" in done.stderr
    done = claw("exec", "-t", "claw-")
    assert done.returncode == 2
    assert b"standard input is not a terminal" in done.stderr


def test_a_state_directory_may_have_a_long_path(tmp_path: Path) -> None:
    state = tmp_path.joinpath(*["long" * 20] * 3)
    with Owner(state=state) as owner:
        assert owner.exec("echo", "here").stdout == b"here\n"
        assert owner.end().endswith("gone")
    assert entries(state) == []


@pytest.mark.parametrize("state_of", ["stopping", "held"])
def test_an_instance_that_takes_no_commands_says_why(state_of: str, state: Path) -> None:
    hold = "lease.hold(600)" if state_of == "held" else "lease.mark('stopping')"
    program = (
        "import sys; from pathlib import Path; from claw_core.ledger import Intent, Ledger\n"
        f"ledger = Ledger.open(Path({str(state)!r}))\n"
        "lease = ledger.acquire(Intent.new(ledger.install, 'local', {}))\n"
        f"{hold}\n"
        + ("lease.abandon()\n" if state_of == "held" else "")
        + "print(lease.name, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        name = holder.stdout.readline().decode().strip()
        done = claw("exec", name, "true")
        holder.communicate()
    assert done.returncode == 125
    assert (b"kept on purpose" if state_of == "held" else b"'stopping'") in done.stderr
    assert name.encode() in done.stderr


def test_in_a_terminal(owner: Owner) -> None:
    script = "trap 'stty size' WINCH; trap 'echo caught; exit 4' INT; stty size; echo $TERM ready;"
    script += " while :; do sleep 0.05; done"
    with Console("exec", "-t", owner.name, "sh", "-c", script) as console:
        console.sees(b"ready")
        assert bytes(console.said) == b"33 101\r\ndumb ready\r\n"
        console.resize(7, 9)
        console.sees(b"7 9\r\n")
        console.press(b"\x03")
        assert console.ends() == 4
        assert console.said.endswith(b"^Ccaught\r\n")
        assert console.attributes() == console.before


def test_a_shell_in_an_instance_that_runs(owner: Owner) -> None:
    with Console("exec", "-t", owner.name) as console:
        console.sees(b"$ ")
        console.press(b"echo $0 $A; exit 6\r")
        assert console.ends() == 6
        assert b"bash session\r\n" in console.said


@pytest.mark.parametrize("times", [1, 3])
def test_the_terminal_is_restored_when_the_session_ends_or_a_signal_comes(times: int) -> None:
    with Owner() as owner:
        with Console("exec", "-t", owner.name, "sh", "-c", "echo ready; sleep 600") as console:
            console.sees(b"ready")
            assert console.attributes() != console.before
            for _ in range(times):
                console.process.send_signal(signal.SIGTERM)
            # A last signal may find the command ended and the terminal restored already.
            assert console.ends() in ({143} if times == 1 else {143, -signal.SIGTERM})
            assert console.attributes() == console.before
        with Console("exec", "-t", owner.name, "sh", "-c", "echo ready; sleep 600") as console:
            console.sees(b"ready")
            owner.end()
            assert console.ends() == 125
            assert console.attributes() == console.before
            assert b"the session has ended" in console.said
