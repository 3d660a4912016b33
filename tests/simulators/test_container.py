"""The simulated `container` is as strict and as inconvenient as the real one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.support import eventually
from simulators.container import mac
from simulators.container.call import Call
from simulators.container.world import IMAGE, World
from simulators.container_support import QUIET, error, listed, running, said


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A Mac with version 1.2.2."""
    with World(tmp_path / "mac") as world:
        yield world


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A Mac on which nothing is ever started."""
    with World(tmp_path_factory.mktemp("calm") / "mac") as world:
        yield world


def trapping(signal: str, then: str) -> tuple[str, ...]:
    """A program that says when it is ready for a signal."""
    return ("sh", "-c", f"trap '{then}' {signal}; echo ready; while :; do sleep 0.05; done")


def test_versions_and_status(calm: World) -> None:
    code, out, _ = said(calm, "--version")
    assert (code, out) == (0, "container CLI version 1.2.2 (build: release, commit: 3c4c59c)\n")
    code, out, _ = said(calm, "system", "status", "--format", "json")
    assert code == 0
    assert json.loads(out)["status"] == "running"
    assert json.loads(out)["apiServerVersion"] == "1.2.2"
    assert "\\/" in out


def test_images_are_inspected(calm: World) -> None:
    code, out, _ = said(calm, "image", "inspect", IMAGE)
    assert code == 0
    assert json.loads(out)[0]["configuration"]["name"] == "docker.io/library/claw-test:1"
    assert error(calm, "image", "inspect", "nothing") == "image not found: nothing"


def test_a_life_step_by_step(world: World) -> None:
    assert said(world, "create", "--name", "one", IMAGE, "sleep", "1000") == (0, "one\n", "")
    assert listed(world) == {}
    created = listed(world, "-a")["one"]
    assert created["status"] == {"networks": [], "state": "stopped"}
    assert world.processes() == {}

    assert said(world, "start", "one") == (0, "one\n", "")
    assert listed(world)["one"]["status"]["state"] == "running"
    assert sorted(world.processes().values()) == ["apiserver", "guest", "helper"]
    assert said(world, "start", "one") == (0, "one\n", "")

    assert error(world, "delete", "one") == (
        'internalError: "failed to delete container" (cause: "invalidState: "container one is '
        'running and can not be deleted"")'
    )
    assert said(world, "stop", "-s", "KILL", "one") == (0, "one\n", "")
    assert listed(world, "-a")["one"]["status"]["state"] == "stopped"
    assert said(world, "stop", "one") == (0, "one\n", "")
    assert error(world, "kill", "one").endswith(
        '(cause: "invalidState: "no runtime client exists: container is stopped"")'
    )
    assert eventually(lambda: world.processes() == {})
    assert said(world, "delete", "one") == (0, "one\n", "")
    assert world.containers() == {}


def test_run_passes_streams_and_code(world: World) -> None:
    code, out, err = said(
        world, "run", "--rm", *QUIET, IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7"
    )
    assert (code, out, err) == (7, "out\n", "err\n")
    assert eventually(lambda: world.containers() == {})


def test_exec_passes_streams_and_code(world: World) -> None:
    name = running(world)
    script = "cat; echo err >&2; exit 9"
    assert said(world, "exec", "-i", name, "sh", "-c", script, stdin=b"in\n") == (
        9,
        "in\n",
        "err\n",
    )
    assert said(world, "exec", name, "cat", stdin=b"not without -i") == (0, "", "")
    assert said(world, "exec", name, "sh", "-c", "kill -9 $$")[0] == 137


def test_the_journal_knows_every_call(world: World) -> None:
    said(world, "ls")
    with world.start("run", "--rm", *QUIET, "--name", "one", IMAGE, "sleep", "1000") as process:
        assert eventually(lambda: "one" in listed(world))
        process.kill()
    first = world.journal()[0]
    assert (first.argv, first.exit) == (("ls",), 0)
    assert first.end is not None
    assert "PATH" in first.env
    killed = next(call for call in world.journal() if call.argv[0] == "run")
    assert (killed.pid, killed.end, killed.exit) == (process.pid, None, None)


def test_guests_die_with_their_helper(world: World) -> None:
    name = running(world, argv=("sh", "-c", "setsid sleep 1000 & sleep 1000"))
    world.run("exec", "-d", name, "sleep", "1000")
    assert eventually(lambda: list(world.processes().values()).count("guest") == 3)
    os.kill(
        next(pid for pid, kind in world.processes().items() if kind == "helper"), signal.SIGKILL
    )
    assert eventually(lambda: world.processes() == {})
    assert listed(world, "-a")[name]["status"]["state"] == "stopped"


def test_the_end_of_the_world_is_the_end_of_everything(tmp_path: Path) -> None:
    with World(tmp_path / "mac") as world:
        running(world)
        world.fault("ls", "begin", "hang")
        hanging = world.start("ls")
        assert eventually(lambda: "cli" in world.processes().values())
        everything = list(world.processes())
    with hanging:
        assert hanging.wait(30) != 0
    assert len(everything) == 4
    assert not any(os.path.exists(f"/proc/{pid}/fd/0") for pid in everything)
    assert not (tmp_path / "mac").exists()


def test_strangers_are_not_to_be_touched(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="buildkit"), World(tmp_path / "mac") as world:
        assert said(world, "delete", "--force", "buildkit")[0] == 0
    with pytest.raises(AssertionError, match="stop --all"), World(tmp_path / "mac") as world:
        said(world, "stop", "--all")


UNKNOWN = (
    "privileged hostname add-host restart security-opt pids-limit gpus log-driver pull "
    "stop-timeout memory-swap userns ipc pid device filter"
)


@pytest.mark.parametrize("option", UNKNOWN.split())
def test_what_only_docker_has_is_refused(calm: World, option: str) -> None:
    code, out, err = said(calm, "run", f"--{option}", "x", IMAGE)
    assert (code, out) == (64, "")
    assert err.startswith(f"Error: Unknown option '--{option}'\nUsage: container run ")
    assert err.endswith("  See 'container run --help' for more information.\n")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (("run",), "Missing expected argument '<image>'"),
        (("run", "--name"), "Missing value for '--name <name>'"),
        (("run", "--name", "--rm", IMAGE), "Missing value for '--name <name>'"),
        (("run", "-c", "1.5", IMAGE), "The value '1.5' is invalid for '-c <cpus>'"),
        (("create", "--progress", "none", IMAGE), "Unknown option '--progress'"),
        (("delete", "-v", "one"), "Unknown option '-v'"),
        (("ls", "--filter", "x"), "Unknown option '--filter'"),
        (("ls", "one"), "Unexpected argument 'one'"),
        (("exec", "one"), "Missing expected argument '<arguments>'"),
    ],
)
def test_arguments_are_parsed_strictly(calm: World, argv: tuple[str, ...], text: str) -> None:
    code, out, err = said(calm, *argv)
    assert (code, out) == (64, "")
    assert err.splitlines()[0] == f"Error: {text}"


def test_values_that_look_like_options_are_joined(world: World) -> None:
    said(world, "create", "--name", "one", "--label=-k=v", "--env=-A=1", IMAGE, "sh")
    assert listed(world, "-a")["one"]["configuration"]["labels"] == {"-k": "v"}


def test_everything_after_the_first_word_is_the_guests(world: World) -> None:
    name = running(world, "--rm")
    assert said(world, "exec", name, "echo", "--rm", "-i", "--", "x")[1] == "--rm -i -- x\n"
    text = error(world, "exec", name, "--", "ls")
    assert text.startswith("failed to start process ")
    assert "failed to find target executable --" in text
    assert "in container one" in text


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (("exec", "no", "ls"), "get failed: container no not found"),
        (("start", "no"), "get failed: container no not found"),
        (("inspect", "no"), "container not found: no"),
        (("delete",), "no containers specified and --all not supplied"),
        (("stop", "--all", "x"), "explicitly supplied container IDs conflict with the --all flag"),
        (("create", "--name", "x!", IMAGE), "container ID x! is not a valid container ID"),
        (("create", "--name", "x", IMAGE), "container ID x is not a valid container ID"),
        (("create", "-m", "100M", IMAGE), "minimum memory amount allowed is 200 MiB"),
        (
            ("create", "-m", "512", IMAGE),
            "minimum memory amount allowed is 200 MiB (got 512 bytes)",
        ),
        (("create", "-l", "a=b=c", IMAGE), "invalid label format a=b=c"),
        (("create", "--network", "no", IMAGE), "network no not found"),
        (("create", "-v", "/no:/x", IMAGE), "path '/no' does not exist"),
        (("create", "--mount", "source=/etc/passwd,target=/x", IMAGE), "path '/etc/passwd' is not"),
        (
            ("create", "--mount", "source=/etc,target=/x,z", IMAGE),
            "unknown directive z when parsing",
        ),
        (("logs", "no"), "failed to get logs for container no (cause: "),
        (("cp", "no:/x", "no:/y"), "one of source or destination must be a container reference"),
        (("cp", "a:b:c", "no:/y"), "invalid path given: a:b:c"),
        (("cp", "/no", "no:/y"), "source path does not exist: /no"),
        (("network", "inspect", "no"), "network not found: no"),
        (("frobnicate",), "failed to find plugin named container-frobnicate"),
    ],
)
def test_messages(calm: World, argv: tuple[str, ...], text: str) -> None:
    assert error(calm, *argv).startswith(text)


@pytest.mark.parametrize("verb", ["stop", "kill", "delete"])
def test_messages_of_many(world: World, verb: str) -> None:
    cause = '(cause: "notFound: "container with ID no not found"")'
    assert error(world, verb, "no") == f'internalError: "failed to {verb} container" {cause}'
    said(world, "create", "--name", "one", IMAGE, "true")
    code, out, err = said(world, "delete", "no", "one", "one", "nor")
    assert (code, out) == (1, "one\n")
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize("argv", [("build", "."), ("volume", "create", "x"), ("run", "-t", IMAGE)])
def test_what_is_left_out_says_so(calm: World, argv: tuple[str, ...]) -> None:
    code, out, err = said(calm, *argv)
    assert (code, out) == (70, "")
    assert err.startswith("not simulated: ")


def test_names_are_taken(world: World) -> None:
    said(world, "create", "--name", "one", IMAGE, "true")
    assert (
        error(world, "run", *QUIET, "--name", "one", IMAGE)
        == "container with id one already exists"
    )
    assert error(world, "create", "--name", "one", IMAGE) == "container already exists: one"
    code, out, _ = said(world, "create", IMAGE, "true")
    assert code == 0
    assert len(out.strip()) == 36


def test_what_ls_and_inspect_show(world: World, tmp_path: Path) -> None:
    options = (
        "--cap-drop",
        "ALL",
        "-l",
        "a=b",
        "-m",
        "512M",
        "-c",
        "2",
        "-w",
        "/work",
        "-u",
        "1000",
    )
    mounts = ("--mount", f"source={tmp_path},target=/src,readonly", "--tmpfs", "/scratch")
    said(
        world, "create", "--name", "one", *options, *mounts, "-e", "K=v", IMAGE, "sh", "-c", "true"
    )
    out = said(world, "ls", "-a", "--format", "json")[1]
    assert out.count("\n") == 1
    assert "\\/work" in out
    assert '": ' not in out
    one = listed(world, "-a")["one"]
    assert one["id"] == "one"
    configuration = one["configuration"]
    assert configuration["labels"] == {"a": "b"}
    assert configuration["capDrop"] == ["ALL"]
    assert configuration["resources"]["memoryInBytes"] == 512 << 20
    process = configuration["initProcess"]
    assert (process["executable"], process["arguments"]) == ("sh", ["-c", "true"])
    assert "K=v" in process["environment"]
    assert process["user"] == {"id": {"gid": 0, "uid": 1000}}
    assert configuration["mounts"][0]["type"] == {"virtiofs": {}}
    assert configuration["mounts"][0]["options"] == ["ro"]
    assert '"id" : "one"' in said(world, "inspect", "one")[1]
    assert json.loads(said(world, "inspect", "one")[1]) == [one]


def test_a_container_that_runs_has_an_address(world: World) -> None:
    name = running(world)
    [network] = listed(world)[name]["status"]["networks"]
    assert network["ipv4Gateway"] == "192.168.64.1"
    world.configure(addresses_after=2)
    seen = [len(listed(world)[name]["status"]["networks"]) for _ in range(3)]
    assert seen == [0, 0, 1]


def test_exec_adds_to_the_environment_and_the_first_one_counts(world: World) -> None:
    name = running(world, "-e", "A=old")
    environment = {**os.environ, "INHERITED": "yes"}
    argv = ("exec", "-e", "A=new", "-e", "B=b", "-e", "INHERITED", "-e", "UNSET", name)
    with world.start(*argv, "cat", "/proc/self/environ", env=environment) as process:
        assert process.stdout is not None
        seen = process.stdout.read().split(b"\0")[:-1]
    assert sorted(seen[:2]) == [b"A=old", b"PATH=/usr/bin:/bin"]
    assert seen[2:] == [b"A=new", b"B=b", b"INHERITED=yes"]
    assert said(world, "exec", "-e", "A=new", name, "sh", "-c", "echo $A")[1] in {"old\n", "new\n"}


@pytest.mark.skipif(os.geteuid() != 0, reason="without root there is no other user in a guest")
def test_exec_inherits_and_may_choose(world: World) -> None:
    name = running(world, "-u", "1000:1000", "-w", "/made")
    assert said(world, "exec", name, "sh", "-c", "id -u; pwd")[1] == "1000\n/made\n"
    assert said(world, "exec", "-u", "0", "-w", "/also/made", name, "pwd")[1] == "/also/made\n"
    assert said(world, "exec", "-u", "agent", name, "id", "-un")[1] == "agent\n"
    assert "unable to find user nobody" in error(world, "exec", "-u", "nobody", name, "true")


def test_mounts_and_rights(world: World, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in/file").write_text("host\n")
    mounts = ("--mount", f"type=bind,source={tmp_path}/in,target=/in,readonly")
    options = ("-v", f"{tmp_path}/out:/deep/out", "--tmpfs", "/scratch", "--read-only")
    name = running(world, *mounts, *options, "--cap-drop", "ALL", "--network", "none")
    assert said(world, "exec", name, "cat", "/in/file")[1] == "host\n"
    assert said(world, "exec", name, "touch", "/in/x")[0] == 1
    assert said(world, "exec", name, "touch", "/deep/out/x", "/scratch/x")[0] == 0
    assert said(world, "exec", name, "touch", "/x")[0] == 1
    assert said(world, "exec", name, "chown", "1000", "/scratch/x")[0] == 1
    assert said(world, "exec", name, "ls", "/sys/class/net", "/proc/sys/net/ipv4/conf/eth0")[0] == 1
    assert said(world, "exec", name, "hostname")[1] == "one\n"
    assert (tmp_path / "out/x").exists()
    assert not (world.directory / "containers/one/upper/scratch/x").exists()


def test_capabilities_come_back_one_by_one(world: World) -> None:
    script = "grep CapBnd /proc/self/status"
    usual = running(world, name="usual")
    none = running(world, "--cap-drop", "ALL", name="none")
    two = running(
        world, "--cap-drop", "ALL", "--cap-add", "CHOWN", "--cap-add", "CAP_KILL", name="two"
    )
    masks = [
        said(world, "exec", one, "sh", "-c", script)[1].split()[1] for one in (usual, none, two)
    ]
    assert [int(mask, 16).bit_count() for mask in masks] == [14, 0, 2]


def test_a_file_mount_is_a_violation(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(AssertionError, match="whole parent directory"),
        World(tmp_path / "mac") as world,
    ):
        running(world, "-v", f"{tmp_path}/file:/file")


def test_pid_1_is_deaf_without_an_init(world: World) -> None:
    running(world, name="deaf")
    running(world, "--init", name="hears")
    running(world, name="handles", argv=trapping("TERM", "exit 0"))
    assert eventually(lambda: said(world, "logs", "handles")[1] == "ready\n")
    for name in ("deaf", "hears", "handles"):
        assert said(world, "kill", "-s", "TERM", name) == (0, f"{name}\n", "")
    assert eventually(lambda: [*listed(world)] == ["deaf"])
    assert said(world, "stop", "-t", "0", "deaf")[0] == 0
    assert listed(world) == {}


def test_the_stop_signal_of_the_image_is_used(world: World) -> None:
    world.image("usr1", StopSignal="SIGUSR1")
    argv = ("usr1", *trapping("USR1", "echo got it; exit"))
    said(world, "run", "-d", *QUIET, "--name", "one", *argv)
    assert eventually(lambda: said(world, "logs", "one")[1] == "ready\n")
    assert said(world, "stop", "-t", "60", "one")[0] == 0
    assert said(world, "logs", "one")[1] == "ready\ngot it\n"


def test_code_of_a_killed_container(world: World) -> None:
    with world.start("run", *QUIET, "--name", "one", IMAGE, "sleep", "1000") as process:
        assert eventually(lambda: "one" in listed(world))
        assert said(world, "kill", "one")[0] == 0
        assert process.wait(30) == 137
    assert listed(world, "-a")["one"]["status"]["state"] == "stopped"
    assert "exit" not in json.dumps(listed(world, "-a"))


def test_removal_comes_after_the_end(world: World) -> None:
    world.configure(exit_seconds=1.5)
    argv = ("run", "--rm", *QUIET, "--name", "one", IMAGE, "true")
    assert said(world, *argv)[0] == 0
    assert error(world, *argv) == "container with id one already exists"
    assert eventually(lambda: said(world, *argv)[0] == 0)


def test_a_program_that_is_not_there(world: World) -> None:
    text = error(world, "run", *QUIET, "--name", "one", IMAGE, "nothing-like-it")
    assert "failed to find target executable nothing-like-it" in text
    assert world.containers() == {}
    assert eventually(lambda: world.processes() == {})


def test_images_come_over_the_network_without_asking(world: World) -> None:
    world.image("far:1", registry=True)
    assert (
        error(world, "run", *QUIET, "far:1", "true")
        == "failed to resolve hostname registry-1.docker.io"
    )
    world.configure(online=True)
    assert said(world, "run", "--rm", *QUIET, "far:1", "true")[0] == 0
    assert said(world, "image", "inspect", "far:1")[0] == 0
    assert world.pulls() == ["docker.io/library/far:1"] * 2
    assert "404" in error(world, "image", "pull", "farther:1")


def test_images_are_saved_loaded_tagged_and_deleted(world: World, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    world.image("first", files={"/data/file": b"kept\n"}, Env=["PATH=/bin", "A=image"])
    assert said(world, "image", "save", "-o", str(archive), "first")[0] == 0
    assert said(world, "image", "delete", "first")[1] == "docker.io/library/first:latest\n"
    assert error(world, "image", "inspect", "first") == "image not found: first"
    assert (
        said(world, "image", "load", stdin=archive.read_bytes())[1]
        == "docker.io/library/first:latest\n"
    )
    assert said(world, "image", "tag", "first", "second:2")[0] == 0
    argv = ("run", "--rm", *QUIET, "second:2", "sh", "-c", "cat /data/file; echo $A")
    assert said(world, *argv) == (0, "kept\nimage\n", "")
    archive.write_bytes(archive.read_bytes().replace(b"kept", b"lost"))
    assert error(world, "image", "load", "-i", str(archive)).startswith("digest mismatch: sha256:")


def test_export_is_of_the_root_alone(world: World, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/secret").touch()
    mounts = ("-v", f"{tmp_path}/shared:/shared", "--tmpfs", "/scratch")
    name = running(world, *mounts)
    said(world, "exec", name, "sh", "-c", "echo x >/root/file; touch /scratch/x")
    archive = tmp_path / "root.tar"
    for _ in range(2):
        assert said(world, "export", "-o", str(archive), name) == (0, "", "")
        with tarfile.open(archive) as tar:
            names = set(tar.getnames())
        assert {"/root/file", "/bin/sh", "/shared", "/scratch"} <= names
        assert not {"/shared/secret", "/scratch/x"} & names
        said(world, "stop", "-t", "0", name)
    assert error(world, "export", "no") == (
        'failed to export container (cause: "notFound: "container with ID no not found"")'
    )
    assert world.run("export", name).stdout == archive.read_bytes()


def test_cp_goes_under_what_is_mounted(world: World, tmp_path: Path) -> None:
    name = running(world, "--tmpfs", "/scratch")
    (tmp_path / "tool").write_text("data")
    (tmp_path / "tool").chmod(0o755)
    assert said(world, "cp", str(tmp_path / "tool"), "one:/root") == (0, "one:/root/tool\n", "")
    assert said(world, "exec", name, "stat", "-c", "%a %u", "/root/tool")[1] == "644 0\n"
    assert said(world, "cp", str(tmp_path / "tool"), "one:/scratch/tool")[0] == 0
    assert said(world, "exec", name, "ls", "/scratch")[1] == ""
    assert said(world, "cp", "one:/root/tool", str(tmp_path / "back"))[0] == 0
    assert (tmp_path / "back").read_text() == "data"
    assert "destination directory does not exist" in error(
        world, "cp", str(tmp_path / "tool"), "one:/no/"
    )
    said(world, "stop", "-t", "0", name)
    assert error(world, "cp", str(tmp_path / "tool"), "one:/root") == (
        'failed to copy into container one (cause: "invalidState: "container one is not running"")'
    )


def test_logs_are_those_of_init(world: World) -> None:
    running(world, argv=("sh", "-c", "echo out; echo err >&2; sleep 1000"))
    assert eventually(lambda: said(world, "logs", "one")[1] == "out\nerr\n")
    assert said(world, "logs", "-n", "1", "one")[1] == "err\n"
    said(world, "exec", "one", "echo", "not logged")
    assert said(world, "logs", "one")[1] == "out\nerr\n"
    said(world, "delete", "--force", "one")
    running(world, argv=("printf", "\\377"))
    assert eventually(lambda: "to utf8" in said(world, "logs", "one")[2])


def test_launchd_knows_the_helpers(world: World) -> None:
    running(world)
    label = "com.apple.container.container-runtime-linux.one"
    launchctl = str(world.bin / "launchctl")

    def labels() -> set[str]:
        out = subprocess.run([launchctl, "list"], capture_output=True, text=True, check=True).stdout
        return {line.split("\t")[2] for line in out.splitlines()}

    assert {label, "com.apple.container.apiserver"} <= labels()
    wrong = [launchctl, "bootout", f"user/{os.getuid()}/{label}"]
    done = subprocess.run(wrong, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "Boot-out failed: 3: No such process\n")
    subprocess.run([launchctl, "bootout", f"gui/{os.getuid()}/{label}"], check=True)
    assert label not in labels()
    assert eventually(lambda: world.processes() == {})
    assert listed(world, "-a")["one"]["status"]["state"] == "stopped"
    assert len(world.journal("launchctl")) == 4


def test_secrets_can_be_looked_for(world: World) -> None:
    running(world, "-e", "KEY=visible-to-all")
    with world.start("exec", "-i", "one", "sh", "-c", "cat >/dev/shm/key") as process:
        process.communicate(b"in-memory-only")
    assert {path.name for path in map(Path, world.holding("visible-to-all"))} == {
        "config.json",
        "journal.jsonl",
    }
    assert world.holding("in-memory-only") == []


def test_the_readme_names_every_knob_and_action() -> None:
    readme = (Path(mac.__file__).parent / "README.md").read_text()
    knobs, faults = readme.split("## Knobs")[1].split("## Faults")
    rows = [line.split("|")[1] for line in knobs.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in row.split("`")[1::2]} == set(mac.KNOBS)
    table = faults.split("| action |")[1].split("How the mishaps")[0]
    named = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    done = {name[1:] for name in vars(Call) if name.startswith("_") and name[1:2] != "_"}
    assert named == done | {"skip", "truncate", "alter", "hide"}
