"""What can go wrong with the simulated `tart` does, once and as it is told."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from cli.support import eventually
from simulators.support import ssh
from simulators.tart.world import Simulator, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}")


@pytest.fixture
def world() -> Iterator[Simulator]:
    with Simulator() as world:
        world.base()
        yield world


def started(world: Simulator, name: str = "base", *options: str) -> subprocess.Popen[str]:
    process = world.run(name, *options)
    world.address(name)
    return process


def leased(world: Simulator, name: str = "base") -> str:
    """The address of its lease, once it has one."""
    assert eventually(lambda: world.lease(name) is not None)
    return world.lease(name) or ""


def test_faults_hit_the_calls_that_they_are_meant_for(world: Simulator) -> None:
    world.fault("get", "fail", vm="ba*", after=1, times=2, text="no", code=3)
    codes = [world.tart("get", "base").returncode for _ in range(5)]
    assert codes == [0, 3, 3, 0, 0]
    world.fault("get", "fail", times=None)
    assert [world.tart("get", "base").returncode for _ in range(3)] == [1, 1, 1]
    world.heal()
    assert world.tart("get", "base").returncode == 0
    with pytest.raises(AssertionError, match="no such fault: get limit"):
        world.fault("get", "limit")


@pytest.mark.parametrize("verb", ["get", "stop", "ip", "suspend", "set", "delete"])
def test_every_verb_can_hang_or_be_killed(world: Simulator, verb: str) -> None:
    world.fault(verb, "hang")
    world.fault(verb, "killed", after=1)
    with pytest.raises(subprocess.TimeoutExpired):
        world.tart(verb, "base", timeout=0.3)
    assert world.tart(verb, "base").returncode == -signal.SIGKILL
    assert world.vms() == {"base"}


# clone


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("no such file", "Error: The file “config.json” couldn’t be opened because there is no"),
        ("no space", "Error: You can’t save the file “disk.img” because the volume"),
    ],
)
def test_a_clone_that_fails_makes_nothing(world: Simulator, kind: str, text: str) -> None:
    world.fault("clone", kind)
    done = world.tart("clone", "base", "one")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(text)
    assert world.vms() == {"base"}
    assert world.tart("clone", "base", "one").returncode == 0


def test_a_clone_can_be_killed_when_its_machine_is_there(world: Simulator) -> None:
    world.fault("clone", "killed after")
    assert world.tart("clone", "base", "one").returncode == -signal.SIGKILL
    assert world.vms() == {"base", "one"}


def test_the_source_of_a_clone_can_go_away(world: Simulator) -> None:
    world.fault("clone", "source gone")
    done = world.tart("clone", "base", "one")
    assert (done.returncode, world.vms()) == (1, set())
    assert done.stderr.startswith("Error: The file “")


def test_a_clone_makes_room_unless_it_is_forbidden(world: Simulator) -> None:
    world.image("ghcr.io/example/base:latest")
    world.tart("clone", "ghcr.io/example/base:latest", "one")
    world.fault("clone", "prunes", times=2)
    world.environment["TART_NO_AUTO_PRUNE"] = "1"
    world.tart("clone", "base", "two")
    assert "ghcr.io" in world.tart("list").stdout
    del world.environment["TART_NO_AUTO_PRUNE"]
    world.tart("clone", "base", "three")
    assert "ghcr.io" not in world.tart("list").stdout


def test_a_slow_copy_holds_the_global_lock(world: Simulator) -> None:
    world.knobs(t_clone=60)
    with subprocess.Popen(
        [world.bin / "tart", "clone", "base", "one"], env=world.environment
    ) as one:
        assert eventually(lambda: any((world.home / "tmp").glob("*")))
        world.knobs(t_clone=0)
        with pytest.raises(subprocess.TimeoutExpired):
            world.tart("clone", "base", "two", timeout=0.5)
        one.kill()
    assert world.vms() == {"base"}


# run


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("limit", "The number of VMs exceeds the system limit\n"),
        ("limit late", "The number of VMs exceeds the system limit\n"),
        ("old limit", "Error: Error Domain=VZErrorDomain Code=6 "),
        ("keychain", "Error: SecKeyCreateRandomKey_ios failed"),
        ("does not start", "Error: Error Domain=VZErrorDomain Code=1 "),
        ("auxiliary storage", 'Error: Error Domain=VZErrorDomain Code=2 "Failed to lock auxiliary'),
    ],
)
def test_a_run_that_fails_leaves_no_lock(world: Simulator, kind: str, text: str) -> None:
    world.fault("run", kind)
    done = world.tart("run", "base")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(text)
    assert not world.running()
    assert not world.processes()
    started(world)


def test_the_lock_flickers_when_the_limit_is_found_late(world: Simulator) -> None:
    world.fault("run", "limit late", seconds=60)
    process = world.run("base")
    assert eventually(lambda: world.running() == {"base": process.pid})


def test_a_guest_can_crash(world: Simulator) -> None:
    world.fault("run", "crash", seconds=0.3)
    process = world.run("base")
    assert "due to error: " in process.communicate()[0]
    assert process.returncode == 0
    assert not world.processes()


def test_a_lease_can_fail_to_come(world: Simulator) -> None:
    world.fault("run", "no lease")
    world.run("base")
    assert eventually(lambda: (world.home / "vms/base/control.sock").exists())
    missed = world.tart("ip", "base")
    assert (missed.returncode, missed.stderr) == (1, "no IP address found\n")
    assert world.tart("ip", "base", "--resolver", "agent").stdout.startswith("127.")


def test_a_lease_can_be_for_a_dead_address_first(world: Simulator) -> None:
    world.fault("run", "wrong lease", address="127.63.0.1", seconds=0.3)
    world.run("base")
    assert world.address("base") != "127.63.0.1"
    assert "ip_address=127.63.0.1\n" in world.leases.read_text()


def test_a_lease_can_be_for_the_address_of_another(world: Simulator) -> None:
    world.tart("clone", "base", "one")
    started(world, "one")
    world.fault("run", "wrong lease", of="one")
    world.run("base")
    assert leased(world) == world.address("one")


def test_the_lease_file_can_be_incomplete_for_a_while(world: Simulator) -> None:
    world.tart("clone", "base", "one")
    world.fault("run", "torn lease", seconds=0.1)
    started(world)
    world.fault("run", "torn lease", seconds=60)
    before = world.leases.stat().st_size
    world.run("one")
    assert eventually(lambda: world.leases.stat().st_size > before)
    done = world.tart("ip", "base")
    assert (done.returncode, done.stderr) == (
        1,
        'Error: Truncated(name: "truncated DHCPD leases file")\n',
    )


def test_an_address_can_be_without_a_route_while_the_agent_answers(world: Simulator) -> None:
    world.fault("run", "unroutable")
    world.run("base")
    address = leased(world)
    with pytest.raises(OSError, match="No route to host") as caught:
        socket.create_connection((address, 22), 10)
    assert caught.value.errno == errno.EHOSTUNREACH
    assert world.tart("exec", "base", "echo", "hi").stdout == "hi\n"
    world.end()
    routes = subprocess.run(
        ["ip", "route", "show", "table", "local"], capture_output=True, text=True, check=True
    )
    assert address not in routes.stdout
    world.directory.mkdir()  # for the end of the fixture


def test_a_run_can_be_deaf(world: Simulator) -> None:
    world.fault("run", "deaf")
    process = started(world)
    process.send_signal(signal.SIGINT)
    assert world.tart("exec", "base", "true").returncode == 0
    assert process.poll() is None


@pytest.mark.parametrize("seconds", [0.3, 60])
def test_a_run_can_keep_its_lock_when_it_is_dead(world: Simulator, seconds: float) -> None:
    world.fault("run", "slow to die", seconds=seconds)
    process = started(world)
    assert world.tart("stop", "base", "--timeout", "0").returncode == 0
    assert process.wait(10) in {0, -signal.SIGKILL}
    if seconds > 1:
        assert "base" in world.running()
        assert world.tart("delete", "base").stderr == 'VM "base" is running\n'
    else:
        assert eventually(lambda: not world.running())
        assert world.tart("delete", "base").returncode == 0


def test_a_saved_state_can_be_refused(world: Simulator) -> None:
    process = started(world, "base", "--suspendable")
    world.tart("suspend", "base")
    assert process.wait(10) == 0
    world.fault("run", "does not restore")
    assert "Code=12" in world.tart("run", "base").stderr
    assert (world.home / "vms/base/state.vzvmsave").exists()


def test_a_control_socket_can_be_missing(world: Simulator) -> None:
    world.fault("run", "no socket")
    world.knobs(exec_patience=0.3)
    started(world)
    assert not (world.home / "vms/base/control.sock").exists()
    assert world.tart("exec", "base", "true").returncode == 1


# ssh


def test_an_ssh_server_can_refuse_for_a_while(world: Simulator) -> None:
    world.fault("ssh", "refused", seconds=0.4)
    world.run("base")
    address = leased(world)
    assert world.address("base") == address
    assert ssh(world, address, "echo hi").stdout == "hi\n"


def test_an_ssh_server_can_reset_what_it_has_accepted(world: Simulator) -> None:
    world.fault("ssh", "reset")
    started(world)
    address = (world.address("base"), 22)
    with socket.create_connection(address, 10) as one, pytest.raises(ConnectionResetError):
        one.recv(1)


def test_an_ssh_server_can_mistreat_the_first_connections(world: Simulator) -> None:
    world.fault("ssh", "reset", connections=2)
    started(world)  # by a connection of its own
    results = [ssh(world, world.lease("base") or "", "true").returncode for _ in range(3)]
    assert results == [255, 0, 0]


def test_an_ssh_server_can_be_silent(world: Simulator) -> None:
    world.fault("ssh", "hang")
    started(world)
    with socket.create_connection((world.address("base"), 22), 10) as connection:
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_an_ssh_server_can_let_nobody_in_for_a_while(world: Simulator) -> None:
    world.tart("clone", "base", "one")
    world.fault("ssh", "denied")
    world.fault("ssh", "denied", after=1, seconds=0.3)
    started(world)
    assert "Permission denied" in ssh(world, world.address("base"), "true").stderr
    started(world, "one")
    assert eventually(lambda: ssh(world, world.address("one"), "true").returncode == 0)


def test_a_host_key_can_change_between_connections(world: Simulator) -> None:
    world.fault("ssh", "host key")
    world.run("base")
    address = leased(world)
    seen = []
    for _ in range(4):
        argv = ["ssh-keyscan", "-t", "ed25519", address]
        scanned = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
        seen += scanned.split()[-1:]
    assert len(set(seen)) == 2


def test_connections_can_be_cut_while_what_they_started_goes_on(world: Simulator) -> None:
    world.fault("ssh", "cut", seconds=0.7)
    started(world)

    def survives() -> bool:
        assert ssh(world, world.address("base"), "sleep 62").returncode == 255
        return "sleep 62" in world.tart("exec", "base", "ps", "-eo", "args=").stdout

    assert eventually(survives, 20)


# The others


def test_stop_can_return_before_the_end(world: Simulator) -> None:
    world.knobs(t_stop=0.5)
    world.fault("stop", "early")
    process = started(world)
    assert world.tart("stop", "base").returncode == 0
    assert world.running() == {"base": process.pid}
    assert process.wait(10) == 0


def test_delete_can_find_a_machine_running_that_is_not(world: Simulator) -> None:
    world.fault("delete", "is running", times=2)
    for _ in range(2):
        done = world.tart("delete", "base")
        assert (done.returncode, done.stderr) == (1, 'VM "base" is running\n')
    assert world.tart("delete", "base").returncode == 0


def test_delete_can_leave_half_a_machine(world: Simulator) -> None:
    world.fault("delete", "half")
    assert world.tart("delete", "base").returncode == 1
    assert world.vms() == {"base"}
    left = set(os.listdir(world.home / "vms/base"))
    assert "disk.img" in left
    assert "config.json" not in left
    assert world.tart("list").stdout == "\n"
    assert world.tart("delete", "base").returncode == 2


def test_list_can_fail_or_be_no_json(world: Simulator) -> None:
    for kind in ("no such file", "truncated", "invalid"):
        world.fault("list", kind)
    done = world.tart("list", "--format", "json")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: The file “disk.img” couldn’t be opened")
    world.heal()
    for kind in ("truncated", "invalid"):
        world.fault("list", kind)
        done = world.tart("list", "--format", "json")
        assert done.returncode == 0
        with pytest.raises(json.JSONDecodeError):
            json.loads(done.stdout)


def test_ip_can_be_empty_or_fail(world: Simulator) -> None:
    world.fault("ip", "empty")
    assert world.tart("ip", "base").returncode == 0
    world.fault("ip", "truncated leases")
    assert "truncated DHCPD leases file" in world.tart("ip", "base").stderr


def test_exec_can_lose_its_connection(world: Simulator) -> None:
    started(world)
    world.fault("exec", "drop", bytes=2)
    world.fault("exec", "no exit", after=1)
    for expected in ("he", "hello\n"):
        done = world.tart("exec", "base", "echo", "hello")
        assert (done.returncode, done.stdout) == (1, expected)
        assert done.stderr.startswith("Error: unavailable (14)")
    assert world.tart("exec", "base", "echo", "hello").stdout == "hello\n"
