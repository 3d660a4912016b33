"""The simulated `tart` as a command: its files, locks, texts and exit codes."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.support import eventually
from simulators.tart import host
from simulators.tart.faults import ANYWHERE, EFFECTS, FAILURES
from simulators.tart.settings import KNOBS
from simulators.tart.world import Simulator, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}")


@pytest.fixture
def world() -> Iterator[Simulator]:
    with Simulator() as world:
        world.base()
        yield world


def answer(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def config(world: Simulator, name: str) -> Any:
    return json.loads((world.home / "vms" / name / "config.json").read_text())


def states(world: Simulator) -> dict[str, str]:
    listed = json.loads(world.tart("list", "--format", "json").stdout)
    return {row["Name"]: row["State"] for row in listed}


def started(world: Simulator, name: str, *options: str) -> subprocess.Popen[str]:
    """`tart run` that has the lock of its machine, and a guest that has booted."""
    process = world.run(name, *options)
    world.address(name)
    return process


def locked(world: Simulator, name: str) -> bool:
    return name in world.running()


# Life and death


def test_a_machine_from_clone_to_delete(world: Simulator) -> None:
    assert answer(world.tart("clone", "base", "one")) == (0, "", "")
    process = started(world, "one")
    assert answer(world.tart("ip", "one")) == (0, f"{world.address('one')}\n", "")
    assert states(world) == {"base": "stopped", "one": "running"}
    assert answer(world.tart("stop", "one")) == (0, "", "")
    assert process.communicate() == ("Stopping VM...\n", "")
    assert process.returncode == 0
    assert answer(world.tart("delete", "one")) == (0, "", "")
    assert world.vms() == {"base"}
    assert world.processes() == {}


def test_running_means_that_the_lock_is_held_by_run(world: Simulator) -> None:
    process = started(world, "base")
    with (world.home / "vms/base/config.json").open("r+") as file:
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
        kind, *_, pid = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))
    assert (kind, pid) == (fcntl.F_WRLCK, process.pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_guest_dies_with_its_run(world: Simulator, number: signal.Signals) -> None:
    process = started(world, "base")
    process.send_signal(number)
    process.communicate()
    assert process.returncode == -number
    assert eventually(lambda: not world.processes())
    assert states(world) == {"base": "stopped"}
    assert (world.home / "vms/base/control.sock").is_socket()
    assert "exit" not in next(call for call in world.journal() if call["argv"][0] == "run")


def test_run_ends_with_its_guest(world: Simulator) -> None:
    process = started(world, "base")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (first,) = set(world.processes()) & set(map(int, children))
    os.kill(first, signal.SIGKILL)
    out, _ = process.communicate()
    assert out.startswith("guest has stopped the virtual machine due to error: ")
    assert process.returncode == 0
    assert not world.running()


def test_run_stays_in_the_foreground_in_the_session_of_its_caller(world: Simulator) -> None:
    process = started(world, "base")
    (call,) = (call for call in world.journal() if call["argv"][0] == "run")
    assert call["pid"] == call["pgid"] == call["sid"] == process.pid
    assert call["ppid"] == os.getpid()
    assert call["env"]["TART_HOME"] == str(world.home)


def test_sigint_is_lost_before_the_machine_is_there(world: Simulator) -> None:
    world.tart("clone", "base", "late")
    process = started(world, "base")
    world.knobs(t_handlers=60)
    late = world.run("late")
    assert eventually(lambda: locked(world, "late"))
    assert [ignored(each.pid, signal.SIGINT) for each in (process, late)] == [False, True]


def ignored(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(re.findall(r"^SigIgn:\s*(\w+)$", status, re.MULTILINE)[0], 16)
    return bool(mask & 1 << number - 1)


def test_a_run_that_nobody_reads_dies_when_it_speaks(world: Simulator) -> None:
    process = started(world, "base")
    assert process.stdout is not None
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == -signal.SIGPIPE


def test_a_power_cut_leaves_the_files(world: Simulator) -> None:
    world.tart("clone", "base", "one")
    process = started(world, "one")
    world.power_off()
    assert process.wait(10) == -signal.SIGKILL
    assert world.vms() == {"base", "one"}
    assert states(world) == {"base": "stopped", "one": "stopped"}


ABANDONED = """
import signal, time
from simulators.tart.world import Simulator
world = Simulator()
world.base()
process = world.run("base")
world.address("base")
print(world.directory, process.pid, flush=True)
time.sleep(60)
"""


def test_a_guest_ends_when_the_test_that_made_its_world_was_killed() -> None:
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, "-c", ABANDONED],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as test:
        assert test.stdout is not None
        directory, pid = test.stdout.readline().split()
        os.kill(int(pid), 0)
        test.kill()
    assert eventually(lambda: not host.processes(f"{directory}/config.json"), 30)
    shutil.rmtree(directory)


# Files


@pytest.mark.parametrize("name", ["config.json", "disk.img", "nvram.bin"])
def test_half_a_machine_does_not_exist(world: Simulator, name: str) -> None:
    world.tart("clone", "base", "half")
    (world.home / "vms/half" / name).unlink()
    assert states(world) == {"base": "stopped"}
    expected = (2, "", 'the specified VM "half" does not exist\n')
    assert answer(world.tart("delete", "half")) == expected
    assert world.vms() == {"base", "half"}


def test_a_clone_is_another_machine_with_the_same_identity(world: Simulator) -> None:
    world.tart("clone", "base", "one")
    base, one = config(world, "base"), config(world, "one")
    assert base.pop("macAddress") != one.pop("macAddress")
    assert base == one
    key = "etc/ssh/ssh_host_ed25519_key"
    assert (world.disk("one") / key).read_bytes() == (world.disk("base") / key).read_bytes()


def test_an_image_keeps_its_mac_until_a_machine_has_it(world: Simulator) -> None:
    image = "ghcr.io/example/base:latest"
    world.image(image)
    pulled = world.tart("clone", image, "one")
    assert (pulled.returncode, pulled.stdout.split("\n")[0]) == (0, "pulling manifest...")
    assert answer(world.tart("clone", image, "two")) == (0, "", "")
    assert answer(world.tart("fqn", image)) == (0, f"{image}\n", "")
    cached = world.home / "cache/OCIs/ghcr.io/example/base/latest/config.json"
    mac = json.loads(cached.read_text())["macAddress"]
    assert config(world, "one")["macAddress"] == mac != config(world, "two")["macAddress"]
    listed = world.tart("list", "--source", "oci", "--format", "json").stdout
    assert '"Source" : "OCI"' in listed
    assert '"ghcr.io\\/example\\/base:latest"' in listed


def test_a_clone_replaces_what_has_its_name_even_if_that_runs(world: Simulator) -> None:
    world.tart("clone", "base", "one")
    process = started(world, "one")
    assert answer(world.tart("clone", "base", "one")) == (0, "", "")
    assert states(world)["one"] == "stopped"
    assert process.poll() is None
    world.knobs(macos_limit=1)  # and the lost one counts, although nobody sees it
    expected = (1, "", "The number of VMs exceeds the system limit\n")
    assert answer(world.tart("run", "one")) == expected
    assert not world.running()


def test_what_a_killed_clone_leaves_is_collected_by_others_but_not_by_a_clone(
    world: Simulator,
) -> None:
    world.fault("clone", "killed before")
    assert world.tart("clone", "base", "one").returncode == -signal.SIGKILL
    (left,) = (world.home / "tmp").iterdir()
    world.tart("clone", "base", "two")
    assert list((world.home / "tmp").iterdir()) == [left]
    world.tart("list")
    assert not list((world.home / "tmp").iterdir())
    assert world.vms() == {"base", "two"}


# Locks


def test_a_clone_holds_up_clones_and_runs_but_nothing_else(world: Simulator) -> None:
    world.fault("clone", "hang with lock", vm="stuck")
    with subprocess.Popen(
        [world.bin / "tart", "clone", "base", "stuck"], env=world.environment
    ) as one:
        assert eventually(lambda: held(world.home))
        for argv in (["clone", "base", "two"], ["run", "base"]):
            with pytest.raises(subprocess.TimeoutExpired):
                world.tart(*argv, timeout=0.5)
        assert states(world) == {"base": "stopped"}
        assert world.tart("set", "base", "--cpu", "6").returncode == 0
        one.kill()
    assert world.tart("clone", "base", "two").returncode == 0


def held(directory: Path) -> bool:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_run_holds_the_global_lock_until_it_has_that_of_its_machine(world: Simulator) -> None:
    world.tart("clone", "base", "slow")
    started(world, "base")
    assert not held(world.home)
    world.knobs(t_start=60)
    world.run("slow")
    assert eventually(lambda: held(world.home))
    assert not locked(world, "slow")


def test_one_machine_runs_once(world: Simulator) -> None:
    started(world, "base")
    assert answer(world.tart("run", "base")) == (2, "", 'VM "base" is already running!\n')
    assert locked(world, "base")


def test_two_macos_guests_per_host_and_any_number_of_others(world: Simulator) -> None:
    world.base("linux", "linux")
    for name in ("one", "two"):
        world.tart("clone", "base", name)
        started(world, name)
    refused = world.tart("run", "base")
    hint = "The number of VMs exceeds the system limit (other running VMs: one, two)\n"
    assert answer(refused) == (1, "", hint)
    started(world, "linux")
    elsewhere = {**world.environment, "TART_HOME": str(world.directory / "another")}
    (world.directory / "another").mkdir()
    (world.home / "vms/base").rename(world.directory / "base")
    (world.directory / "another/vms").mkdir()
    (world.directory / "base").rename(world.directory / "another/vms/base")
    done = subprocess.run(
        [world.bin / "tart", "run", "base"],
        env=elsewhere,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer(done) == (1, "", "The number of VMs exceeds the system limit\n")


def test_a_machine_with_the_mac_of_one_that_runs_gets_another(world: Simulator) -> None:
    image = "ghcr.io/example/base:latest"
    world.image(image)
    world.tart("clone", image, "one")
    mac = config(world, "one")["macAddress"]
    started(world, "one")
    (world.home / "vms/base/config.json").write_text(
        json.dumps({**config(world, "base"), "macAddress": mac})
    )
    process = world.run("base")
    assert process.stdout is not None
    assert process.stdout.readline() == (
        "There is already a running VM with the same MAC address!\n"
    )
    assert process.stdout.readline() == "Resetting VM to assign a new MAC address...\n"
    assert eventually(lambda: locked(world, "base"))
    assert config(world, "base")["macAddress"] != mac


# Texts and exit codes


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        ("clone no x", 2, 'the specified VM "no" does not exist\n'),
        ("pull ghcr.io/a/b:c", 1, "Error: "),
        ("export base", 70, "the simulated tart does not know how to export\n"),
        ("clone base a/b", 64, "Error: <new-name> should be a local name\n"),
        ("run no", 1, 'Error: the specified VM "no" does not exist\n'),
        ("ip no", 2, 'the specified VM "no" does not exist\n'),
        ("get no", 2, 'the specified VM "no" does not exist\n'),
        ("set no --cpu 4", 2, 'the specified VM "no" does not exist\n'),
        ("exec no true", 2, 'the specified VM "no" does not exist\n'),
        ("exec base true", 2, 'VM "base" is not running\n'),
        ("stop no", 2, 'the specified VM "no" does not exist\n'),
        ("stop base", 2, 'VM "base" is not running\n'),
        ("suspend base", 2, 'VM "VM "base" is not running" is not running\n'),
        ("delete no base", 2, 'the specified VM "no" does not exist\n'),
        ("rename no x", 64, "Error: failed to rename a non-existent local VM: no\n"),
        ("rename base base", 64, "Error: failed to rename VM base, target VM base already exists"),
        ("list --foo", 64, "Error: Unknown option '--foo'\n"),
        ("run base --net-softnet --net-host", 64, "Error: "),
        (
            "run base --net-softnet",
            1,
            'Error: InitializationFailed(why: "softnet not found in PATH")\n',
        ),
        (
            "run base --dir=/tmp --dir=/var",
            64,
            "Error: invalid --dir syntax: for multiple directory",
        ),
        ("run base --dir=/nowhere", 1, "Error: "),
        ("clone ghcr.io/a/b:c x", 1, "Error: "),
        ("set base --cpu 1", 1, "Error: LessThanMinimalResourcesError: VM should have 4 CPU cores"),
        ("set base --disk-size 20", 1, "new disk size of 20 GB should be larger than the current"),
    ],
)
def test_a_failure_has_its_code_and_text(world: Simulator, argv: str, code: int, text: str) -> None:
    done = world.tart(*argv.split())
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(text)
    assert (code == 64) == ("Usage: tart " in done.stderr)
    assert world.vms() == {"base"}


def test_list_is_json_as_apple_prints_it(world: Simulator) -> None:
    text = world.tart("list", "--format", "json").stdout
    assert re.search(r'^    "State" : "stopped",?$', text, re.MULTILINE)
    (row,) = json.loads(text)
    assert row.pop("Accessed").endswith("Z")
    assert (row.pop("Source"), row.pop("Name"), row.pop("State")) == ("local", "base", "stopped")
    assert row == {"Disk": 50, "Size": 0, "Running": False}
    orders = {
        tuple(json.loads(world.tart("get", "base", "--format", "json").stdout)) for _ in "12345"
    }
    assert len(orders) > 1
    world.tart("delete", "base")
    assert world.tart("list", "--format", "json").stdout == "[\n\n]\n"
    assert world.tart("list").stdout == "\n"


def test_get_tells_memory_in_mebibytes_and_the_size_as_text(world: Simulator) -> None:
    row = json.loads(world.tart("get", "base", "--format", "json").stdout)
    assert (row["CPU"], row["Memory"], row["Disk"], row["OS"]) == (4, 8192, 50, "darwin")
    assert re.fullmatch(r"\d+\.\d{3}", row["Size"])
    assert (row["Running"], row["State"]) == (False, "stopped")


@pytest.mark.parametrize("version", ["2.27.0", "2.30.6", "2.32.1", "2.35.0", "SNAPSHOT"])
def test_a_version_is_what_it_says(world: Simulator, version: str) -> None:
    world.knobs(version=version)
    assert answer(world.tart("--version")) == (0, f"{version}\n", "")
    (row,) = json.loads(world.tart("list", "--format", "json").stdout)
    assert ("SizeOnDisk" in row) == (version in {"2.27.0", "2.30.6"}) == ("Accessed" not in row)
    if version == "2.27.0":
        assert world.tart("ip", "base", "--resolver", "agent").returncode == 64


def test_set_changes_a_machine_and_takes_no_lock(world: Simulator) -> None:
    process = started(world, "base")
    before = config(world, "base")
    argv = ("--cpu", "6", "--memory", "9000", "--disk-size", "60", "--random-mac")
    assert answer(world.tart("set", "base", *argv)) == (0, "", "")
    after = config(world, "base")
    assert (after["cpuCount"], after["memorySize"]) == (6, 9000 * 1024**2)
    assert after["macAddress"] != before["macAddress"]
    assert json.loads(world.tart("get", "base", "--format", "json").stdout)["Disk"] == 60
    assert world.running() == {"base": process.pid}


def test_deleting_stops_at_the_first_failure(world: Simulator) -> None:
    for name in ("one", "two"):
        world.tart("clone", "base", name)
    assert world.tart("delete", "one", "no", "two").returncode == 2
    assert world.vms() == {"base", "two"}


@pytest.mark.parametrize(
    ("dialect", "text"),
    [(1, 'VM "base" is running\n'), (2, 'the specified VM "base" does not exist\n')],
)
def test_a_machine_that_runs_is_not_deleted(world: Simulator, dialect: int, text: str) -> None:
    world.knobs(delete_running=dialect)
    started(world, "base")
    assert answer(world.tart("delete", "base")) == (dialect, "", text)
    assert locked(world, "base")


def test_an_address_is_that_of_the_last_lease_even_of_a_machine_that_is_off(
    world: Simulator,
) -> None:
    started(world, "base")
    address = world.address("base")
    world.tart("stop", "base")
    assert world.tart("ip", "base").stdout == f"{address}\n"
    lines = [line.strip() for line in world.leases.read_text().splitlines()]
    mac = re.sub(r"\b0(?=\w)", "", config(world, "base")["macAddress"])
    assert lines[2:4] == [f"ip_address={address}", f"hw_address=1,{mac}"]


def test_a_miss_takes_a_second_and_a_wait_asks_again(world: Simulator) -> None:
    began = time.monotonic()
    expected = (1, "", "no IP address found, is your VM running?\n")
    assert answer(world.tart("ip", "base")) == expected
    assert time.monotonic() - began >= 1
    world.knobs(t_lease=0.3)
    world.run("base")
    assert world.tart("ip", "base", "--wait", "10").stdout == f"{world.address('base')}\n"


def test_stop_kills_what_does_not_listen_and_does_not_wait_for_its_end(world: Simulator) -> None:
    world.fault("run", "deaf")
    process = started(world, "base")
    assert answer(world.tart("stop", "base", "--timeout", "1")) == (0, "", "")
    assert process.wait(10) == -signal.SIGKILL


def test_the_collector_complains_and_the_call_succeeds(world: Simulator) -> None:
    world.knobs(garbage_noise=True)
    done = world.tart("get", "base")
    assert done.returncode == 0
    assert done.stderr.startswith('Failed to perform garbage collection: Failed("failed to lock ')


def test_the_users_own_machines_are_safe(world: Simulator, tmp_path: Path) -> None:
    for change in ({"TART_HOME": ""}, {"TART_HOME": f"{tmp_path}/.tart"}):
        environment = {**world.environment, "HOME": str(tmp_path), **change}
        done = subprocess.run(
            [world.bin / "tart", "list"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "the simulated tart needs TART_HOME" in done.stderr
        assert done.returncode == 1


def test_every_knob_and_every_fault_is_in_the_readme() -> None:
    readme = (Path(__file__).parent / "tart/README.md").read_text()
    knobs, _, faults = readme.partition("## Knobs")[2].partition("## Faults")
    rows = {row.split("|")[1] for row in knobs.splitlines() if row.startswith("| `")}
    assert set(re.findall(r"`(\w+)`", "".join(rows))) == set(KNOBS)
    told: dict[str, set[str]] = {}
    verb = ""
    for row in faults.splitlines():
        if row.startswith("| ") and not row.startswith("| verb"):
            _, first, kinds, *_ = row.split("|")
            verb = first.strip().strip("`") or verb
            told.setdefault(verb, set()).update(re.findall(r"`([^`]+)`", kinds))
    assert told.pop("any but `ssh") == ANYWHERE
    every = {verb: EFFECTS[verb] | set(FAILURES.get(verb, ())) for verb in EFFECTS}
    assert told == {verb: kinds for verb, kinds in every.items() if kinds}
