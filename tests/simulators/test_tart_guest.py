"""The guest of the simulated `tart`: how one gets in, what it has, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.support import eventually
from simulators.support import ssh
from simulators.tart import frames
from simulators.tart.world import Simulator, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}")

SHARED = "/Volumes/My Shared Files"


@pytest.fixture
def world() -> Iterator[Simulator]:
    with Simulator() as world:
        world.base()
        yield world


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """A world with the machine `vm`, which runs and which no test harms."""
    (shared := tmp_path_factory.mktemp("shared") / "in").mkdir()
    (shared / "hello").write_text("from the host")
    with Simulator() as world:
        world.base("vm")
        world.base("linux", "linux")
        world.run("vm", f"--dir=in:{shared}:ro", f"--dir=out:{shared.parent}")
        world.run("linux", f"--dir=in:{shared}:ro")
        for name in ("vm", "linux"):
            world.address(name)
        yield world


def started(world: Simulator, name: str, *options: str) -> subprocess.Popen[str]:
    process = world.run(name, *options)
    world.address(name)
    return process


# In by SSH


def test_admin_gets_in_with_the_password_and_is_root_when_he_wants(running: Simulator) -> None:
    done = ssh(running, running.address("vm"), "id -un; pwd; echo $0; sudo id -un; echo $PATH")
    assert done.stdout.splitlines() == [
        "admin",
        "/Users/admin",
        "zsh",
        "root",
        "/usr/bin:/bin:/usr/sbin:/sbin",
    ]


def test_admin_gets_in_with_a_key(running: Simulator, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    address = running.address("linux")
    refused = ssh(running, address, "true", "-o", "PasswordAuthentication=no", key=key)
    assert "Permission denied" in refused.stderr
    public = key.with_suffix(".pub").read_text().strip()
    ssh(running, address, f"umask 77 && mkdir .ssh && echo '{public}' > .ssh/authorized_keys")
    assert ssh(running, address, "pwd", key=key).stdout == "/home/admin\n"


def test_a_guest_sees_tools_of_its_host_but_nothing_else_of_it(running: Simulator) -> None:
    done = running.tart("exec", "vm", "ls", "-A", "/", "/tmp", "/root")
    assert done.returncode == 0
    assert set(done.stdout.split("\n\n")[0].split()[1:]) == {
        *("Users", "Volumes", "bin", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sbin"),
        *("sys", "tmp", "usr", "var"),
    }
    assert running.tart("exec", "vm", "sh", "-c", "tar --version && git --version").returncode == 0
    seen = running.tart("exec", "vm", "ps", "-eo", "comm=").stdout.split()
    assert "pytest" not in " ".join(seen)


def test_new_host_keys_hold_at_once(world: Simulator) -> None:
    process = started(world, "base")
    address = world.address("base")
    before = host_key(address)
    assert "" != before in (world.disk("base") / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
    ssh(world, address, "sudo rm /etc/ssh/ssh_host_ed25519_key*; sudo ssh-keygen -q -A")
    assert before != host_key(address) != ""
    assert process.poll() is None


def host_key(address: str) -> str:
    scanned = subprocess.run(
        ["ssh-keyscan", "-t", "ed25519", address], capture_output=True, text=True, check=True
    )
    return scanned.stdout.split()[-1]


# Shared directories


def test_a_share_is_mounted_and_read_only_if_told(running: Simulator) -> None:
    listed = running.tart("exec", "vm", "cat", f"{SHARED}/in/hello")
    assert (listed.returncode, listed.stdout) == (0, "from the host")
    refused = running.tart("exec", "vm", "sudo", "touch", f"{SHARED}/in/x")
    assert "Read-only file system" in refused.stderr
    assert running.tart("exec", "vm", "touch", f"{SHARED}/out/made").returncode == 0
    assert running.tart("exec", "vm", "ls", f"{SHARED}/out").stdout == "in\nmade\n"
    assert running.tart("exec", "vm", "stat", "-c%U", f"{SHARED}/out/made").stdout == "admin\n"
    options = {option for call in running.calls("run") for option in call}
    (out,) = (option for option in options if option.startswith("--dir=out:"))
    assert (Path(out.removeprefix("--dir=out:")) / "made").stat().st_uid == os.getuid()


def test_linux_mounts_nothing_by_itself(running: Simulator) -> None:
    assert running.tart("exec", "linux", "ls", "/Volumes").returncode != 0
    script = (
        "sudo mkdir /mnt && sudo mount -t virtiofs com.apple.virtio-fs.automount /mnt && "
        "cat /mnt/in/hello && ! sudo touch /mnt/in/x"
    )
    done = running.tart("exec", "linux", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, "from the host")


def test_a_share_without_a_name_is_all_there_is_and_a_tag_is_not_mounted(
    world: Simulator, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    world.run("base", f"--dir={tmp_path}:tag=mine", f"--dir={tmp_path}:ro")
    world.address("base")
    assert world.tart("exec", "base", "ls", SHARED).stdout == "file\n"
    script = "sudo mkdir /mine && sudo mount_virtiofs mine /mine && sudo touch /mine/made"
    assert world.tart("exec", "base", "sh", "-c", script).returncode == 0
    assert (tmp_path / "made").exists()


# The disk


def test_what_is_not_synced_is_lost_with_the_power(world: Simulator) -> None:
    started(world, "base")
    script = "echo 1 > kept; rm -r /tmp/* ; sync; echo 2 > lost; sudo rm /etc/hosts"
    assert world.tart("exec", "base", "sh", "-c", script).returncode == 0
    world.tart("clone", "base", "copy")
    world.tart("stop", "base")
    for name in ("base", "copy"):
        home = world.disk(name) / "Users/admin"
        assert (home / "kept").read_text() == "1\n"
        assert not (home / "lost").exists()
        assert (world.disk(name) / "etc/hosts").exists()
    started(world, "copy")
    assert world.tart("exec", "copy", "cat", "kept", "/etc/hostname").returncode == 0


def test_a_guest_that_shuts_down_writes_its_disk(world: Simulator) -> None:
    process = started(world, "base")
    script = (
        "echo 1 > kept; sudo rm /usr/bin/git; mkdir -m 700 d; ln -s ../kept d/link; shutdown -h now"
    )
    refused = world.tart("exec", "base", "sh", "-c", script)
    assert refused.stderr == "shutdown: NOT super-user\n"
    assert world.tart("exec", "base", "sudo", "shutdown", "-h", "now").returncode == 1
    assert process.communicate()[0] == "guest has stopped the virtual machine\n"
    assert process.returncode == 0
    world.tart("clone", "base", "copy")
    started(world, "copy")
    script = "test ! -e /usr/bin/git && cat d/link && stat -c '%U %a' d"
    assert world.tart("exec", "copy", "sh", "-c", script).stdout == "1\nadmin 700\n"


def test_a_disk_is_never_missing_while_it_is_written(world: Simulator) -> None:
    started(world, "base")
    script = "for i in 1 2 3 4 5 6 7 8; do echo $i > file; sync; done"
    argv = [str(world.bin / "tart"), "exec", "base", "sh", "-c", script]
    with subprocess.Popen(argv, env=world.environment) as writer:
        number = 0
        while writer.poll() is None:
            number += 1
            assert world.tart("clone", "base", f"copy{number}").returncode == 0
            assert world.tart("list").returncode == 0
            assert (world.disk(f"copy{number}") / "etc/passwd").exists()
    assert (world.disk("base") / "Users/admin/file").read_text() == "8\n"


def test_a_guest_whose_machine_was_replaced_cannot_hurt_the_new_one(world: Simulator) -> None:
    world.tart("clone", "base", "one")
    process = started(world, "one")
    address = world.address("one")
    world.tart("clone", "base", "one")
    assert ssh(world, address, "echo x > file; sync; cat file").stdout == "x\n"
    assert not (world.disk("one") / "Users/admin/file").exists()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0


# tart exec


def test_exec_carries_bytes_and_the_exit_code(running: Simulator) -> None:
    script = "cat; echo err >&2; exit 7"
    done = running.tart("exec", "-i", "vm", "sh", "-c", script, input="x" * 300_000)
    assert (done.returncode, len(done.stdout), done.stderr) == (7, 300_000, "err\n")


def test_input_that_comes_with_the_command_is_not_lost(running: Simulator) -> None:
    asked = {"name": "cat", "args": [], "interactive": True, "tty": None}
    sent = frames.pack_json(frames.COMMAND, asked)
    sent += frames.pack(frames.STDIN, b"hello") + frames.pack(frames.STDIN)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(running.home / "vms/vm/control.sock"))
        connection.sendall(sent)
        received = b"".join(iter(lambda: connection.recv(4096), b""))
    assert frames.Reader().feed(received) == [
        (frames.HELLO, b""),
        (frames.STDOUT, b"hello"),
        (frames.EXIT, b"0"),
    ]


def test_exec_without_i_has_no_input_and_takes_all_behind_the_name_as_it_is(
    running: Simulator,
) -> None:
    assert running.tart("exec", "vm", "cat", input="x").stdout == ""
    assert running.tart("exec", "vm", "echo", "-i", "--", "a  b").stdout == "-i -- a  b\n"
    refused = running.tart("exec", "vm", "--", "true")
    assert (refused.returncode, refused.stderr) == (
        1,
        'Error: unknown (2): exec: "--": executable file not found in $PATH\n',
    )


def test_exec_is_no_login_and_its_arguments_are_logged_in_the_guest(running: Simulator) -> None:
    done = running.tart("exec", "vm", "sh", "-c", "pwd; echo $PATH; echo $TERM; id -un")
    assert done.stdout.splitlines() == [
        "/Users/admin",
        "/bin:/usr/bin:/usr/sbin:/usr/local/bin:/opt/homebrew/bin",
        "xterm-256color",
        "admin",
    ]
    log = running.tart("exec", "vm", "cat", "/tmp/tart-guest-agent.log").stdout
    assert 'executing ["sh","-c","pwd; echo $PATH' in log


def test_exec_lasts_as_long_as_somebody_holds_its_output(running: Simulator) -> None:
    began = time.monotonic()
    assert running.tart("exec", "vm", "sh", "-c", "sleep 0.4 & echo hi").stdout == "hi\n"
    assert time.monotonic() - began >= 0.4


def test_exec_with_t_wants_a_terminal(running: Simulator) -> None:
    assert running.tart("exec", "-t", "vm", "true").returncode == -signal.SIGTRAP
    code = (
        "import os,pty,sys\n"
        "status = pty.spawn(sys.argv[1:])\n"
        "sys.exit(os.waitstatus_to_exitcode(status))\n"
    )
    argv = [
        str(running.bin / "tart"),
        "exec",
        "-t",
        "-i",
        "vm",
        "sh",
        "-c",
        "tty; test -t 0; exit 5",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        env=running.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (5, b"/dev/pts/0\r\n")


@pytest.mark.parametrize(("dialect", "killed", "absent"), [("v0.11.0", 255, 1), ("main", 137, 125)])
def test_a_dialect_of_the_agent_has_its_exit_codes(
    world: Simulator, dialect: str, killed: int, absent: int
) -> None:
    world.knobs(agent=dialect)
    started(world, "base")
    assert world.tart("exec", "base", "sh", "-c", "kill -9 $$").returncode == killed
    assert world.tart("exec", "base", "no-such-command").returncode == absent


@pytest.mark.parametrize(("dialect", "left"), [("v0.11.0", 1), ("main", 0)])
def test_a_caller_that_goes_takes_its_command_along(
    world: Simulator, dialect: str, left: int
) -> None:
    world.knobs(agent=dialect)
    started(world, "base")
    argv = [str(world.bin / "tart"), "exec", "base", "sh", "-c", "sleep 61 & echo hi; wait"]
    with subprocess.Popen(argv, env=world.environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"hi\n"
        process.kill()
    sleeping = ["exec", "base", "sh", "-c", "ps -eo args= | grep -c '^[s]leep 61'"]
    shells = ["exec", "base", "sh", "-c", "ps -eo args= | grep -c '^sh -c [s]leep 61'"]
    assert eventually(lambda: world.tart(*shells).stdout == "0\n")
    assert eventually(lambda: world.tart(*sleeping).stdout == f"{left}\n")


def test_an_old_agent_loses_the_end_of_the_output(world: Simulator) -> None:
    world.knobs(agent="v0.4.0")
    started(world, "base")
    script = "printf begin; sleep 0.3; printf end"
    assert world.tart("exec", "base", "sh", "-c", script).stdout == "begin"


def test_without_an_agent_exec_waits_and_fails(world: Simulator) -> None:
    world.fault("run", "no agent")
    world.knobs(exec_patience=0.5)
    process = started(world, "base")
    path = world.home / "vms/base/control.sock"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        assert connection.recv(1) == b""
    done = world.tart("exec", "base", "true")
    assert done.returncode == 1
    assert done.stderr.startswith("Failed to connect to the VM using its control socket: ")
    process.kill()
    assert world.tart("exec", "base", "true").returncode == 2


def test_an_agent_that_comes_late_is_waited_for(world: Simulator) -> None:
    world.knobs(t_agent=0.5)
    started(world, "base")
    assert world.tart("exec", "base", "echo", "hi").stdout == "hi\n"


def test_exec_fails_when_its_machine_dies(world: Simulator) -> None:
    process = started(world, "base")
    argv = [str(world.bin / "tart"), "exec", "base", "sh", "-c", "echo hi; sleep 61"]
    with subprocess.Popen(
        argv, env=world.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as caller:
        assert caller.stdout is not None
        assert caller.stderr is not None
        assert caller.stdout.readline() == b"hi\n"
        process.kill()
        assert caller.wait(10) == 1
        assert caller.stderr.read().startswith(b"Error: unavailable (14)")


@pytest.mark.parametrize("version", ["2.30.0", "2.32.1", "SNAPSHOT"])
def test_a_control_socket_that_was_left_is_in_the_way(world: Simulator, version: str) -> None:
    world.knobs(version=version, exec_patience=0.3)
    started(world, "base")
    world.tart("stop", "base")
    process = world.run("base")
    if version == "SNAPSHOT":
        assert process.communicate()[1].startswith("Error: bind(")
        assert process.returncode == 1
    else:
        world.address("base")
        assert world.tart("exec", "base", "true").returncode == (0 if version == "2.30.0" else 1)


# Suspended machines


def test_a_machine_is_suspended_and_resumed(world: Simulator) -> None:
    process = started(world, "base", "--suspendable")
    address = world.address("base")
    world.tart("exec", "base", "sh", "-c", "echo 1 > file")
    assert (done := world.tart("suspend", "base")).returncode == 0, done
    assert process.communicate()[0].splitlines() == [
        "pausing VM to take a snapshot...",
        "creating a snapshot...",
        "snapshot created successfully! shutting down the VM...",
    ]
    assert process.returncode == 0
    assert state(world) == "suspended"
    world.tart("clone", "base", "copy")
    assert state(world, "copy") == "suspended"
    (world.home / "vms/base/control.sock").unlink()
    process = started(world, "base")
    assert world.address("base") == address
    assert world.tart("exec", "base", "cat", "file").stdout == "1\n"
    # The copy has the same MAC, so it loses what was saved.
    copy = world.run("copy")
    assert eventually(lambda: state(world, "copy") == "running")
    assert eventually(lambda: world.address("copy") != address)
    copy.send_signal(signal.SIGINT)
    assert "Resetting VM to assign a new MAC address...\n" in copy.communicate()[0]
    assert state(world, "copy") == "stopped"


def state(world: Simulator, name: str = "base") -> str:
    return str(json.loads(world.tart("get", name, "--format", "json").stdout)["State"])


def test_a_suspension_that_fails_ends_the_machine(world: Simulator) -> None:
    process = started(world, "base")
    assert world.tart("suspend", "base").returncode == 0
    out, err = process.communicate()
    assert (out.startswith("Failed to suspend the VM: "), err) == (True, "")
    assert process.returncode == 1
    assert state(world) == "stopped"


def test_half_a_saved_state_is_not_restored_and_stays(world: Simulator) -> None:
    world.knobs(t_suspend=60)
    process = started(world, "base", "--suspendable")
    world.tart("suspend", "base")
    assert eventually(lambda: (world.home / "vms/base/state.vzvmsave").exists())
    process.kill()
    process.wait()
    assert state(world) == "suspended"
    refused = world.tart("run", "base")
    assert refused.stderr.startswith("Error: Error Domain=VZErrorDomain Code=12 ")
    assert refused.returncode == 1
    assert state(world) == "suspended"
    assert world.tart("stop", "base").returncode == 0
    assert state(world) == "stopped"


def test_another_configuration_makes_a_saved_state_useless(world: Simulator) -> None:
    process = started(world, "base", "--suspendable")
    world.tart("suspend", "base")
    process.wait(10)
    world.tart("set", "base", "--cpu", "6")
    assert world.tart("run", "base").returncode == 1


def test_a_request_to_stop_is_heard_by_linux_only(world: Simulator) -> None:
    world.base("linux", "linux")
    mac, linux = started(world, "base"), started(world, "linux")
    for process in (mac, linux):
        process.send_signal(signal.SIGUSR2)
    assert linux.communicate()[0].splitlines() == [
        "Requesting guest OS to stop...",
        "guest has stopped the virtual machine",
    ]
    assert mac.poll() is None


# The network


def test_softnet_lives_as_long_as_its_machine(world: Simulator) -> None:
    world.softnet()
    options = ("--net-softnet", "--net-softnet-block=0.0.0.0/0", "--net-softnet-allow=192.0.2.1/32")
    process = started(world, "base", *options)
    (call,) = (call for call in world.journal() if call["argv"][0] == "run")
    (note,) = call["notes"]
    assert (note["softnet"], note["allow"], note["block"]) == (True, "192.0.2.1/32", "0.0.0.0/0")
    assert any("softnet --vm-fd" in command for command in world.processes().values())
    assert world.tart("ip", "base", "--resolver", "arp").returncode == 1
    process.kill()
    process.wait()
    assert eventually(lambda: not world.processes())


def test_the_policy_of_softnet_changes_while_it_runs(world: Simulator) -> None:
    world.softnet()
    world.knobs(version="2.34.0")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        argv = ["run", "base", "--net-softnet", f"--net-softnet-control-fd={theirs.fileno()}"]
        process = subprocess.Popen(
            [world.bin / "tart", *argv], env=world.environment, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        ours.settimeout(10)
        request = {"jsonrpc": "2.0", "id": 1, "method": "softnet.policy.set"}
        ours.sendall(
            json.dumps({**request, "params": {"allow": [], "block": ["0.0.0.0/0"]}}).encode()
        )
        ours.sendall(b"\n")
        answer = json.loads(ours.recv(4096))
        assert answer["result"] == {"allow": [], "block": ["0.0.0.0/0"]}
        process.kill()
        process.wait()
    assert eventually(lambda: not world.processes())


def test_a_machine_does_not_survive_its_softnet(world: Simulator) -> None:
    world.softnet()
    process = started(world, "base", "--net-softnet")
    (filtering,) = (pid for pid, line in world.processes().items() if "softnet --vm-fd" in line)
    os.kill(filtering, signal.SIGKILL)
    assert "Softnet process terminated prematurely" in process.communicate()[1]
    assert process.returncode == 1
