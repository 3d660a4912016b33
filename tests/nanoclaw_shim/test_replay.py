"""Recorded conversations of NanoClaw's host, replayed against the shim and a real engine."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from cli.support import entries, eventually
from nanoclaw_shim import recordings
from nanoclaw_shim.world import World, await_names

NAME = "nanoclaw-family-chat-1764355200000"


def test_a_message_to_a_group_of_version_1(world: World) -> None:
    done = world.docker(
        *recordings.v1(world.root, "family_chat"),
        stdin=recordings.message("family_chat", "touch what is mine"),
    )
    assert done.returncode == 0, done.stderr
    assert recordings.outputs(done.stdout) == [
        {"status": "success", "result": "one", "newSessionId": "s-1"},
        {"status": "success", "result": None, "newSessionId": "s-1"},
    ]
    assert done.stdout.startswith(b"---NANOCLAW_OUTPUT_START---\n{")
    assert done.stderr == b"runner: /home/node Europe/Vienna\n"
    assert (world.root / "groups/family_chat/note").read_text() == "placeholder\n"
    assert (world.root / "data/ipc/family_chat/input/x").read_text() == "x\n"
    assert world.names() == []


def test_an_exit_code_and_standard_error_are_the_runners(world: World) -> None:
    done = world.docker(
        *recordings.v1(world.root, "family_chat"),
        stdin=recordings.message("family_chat", "fail"),
    )
    assert done.returncode == 3
    assert done.stderr.endswith(b"no such model\n")
    assert done.stdout == b""


def test_the_main_group_sees_the_project_and_not_its_secrets(world: World) -> None:
    (world.root / ".env").write_text("TOKEN=secret\n")
    done = world.docker(
        *recordings.v1_main(world.root), stdin=recordings.message("main", "look around")
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith(b"hidden\nreadonly\n")
    assert not (world.root / "new").exists()


def test_a_running_container_is_seen_inspected_entered_and_stopped(world: World) -> None:
    words = recordings.v1(world.root, "family_chat")
    client = world.start(*words, stdin=recordings.message("family_chat", "hang"))
    assert client.stdout is not None
    assert client.stdout.readline() == b"---NANOCLAW_OUTPUT_START---\n"
    assert world.names() == [NAME]
    assert world.names("--filter", "status=exited") == []
    shown = world.docker("inspect", "--format", "{{.State.Status}}|{{.State.ExitCode}}", NAME)
    assert shown.stdout == b"running|0\n"
    inside = world.docker("exec", "-i", NAME, "sh", "-c", "cat; pwd", stdin=b"in\n")
    assert (inside.returncode, inside.stdout) == (0, b"in\n/workspace/group\n"), inside.stderr
    hosts = world.docker("exec", NAME, "cat", "/etc/hosts").stdout
    assert b"host.docker.internal" in hosts  # where its gateway is
    refused = world.docker("rm", NAME)
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert b"is running" in refused.stderr
    again = world.docker(*words)
    assert again.returncode == 125
    assert b"the container name nanoclaw-family-chat-1764355200000 is in use" in again.stderr
    stopped = world.docker("stop", "-t", "1", NAME)
    assert (stopped.returncode, stopped.stdout) == (0, f"{NAME}\n".encode()), stopped.stderr
    assert world.quiet()
    assert client.wait(30) == 143
    client.communicate()
    assert world.names() == []


def test_nothing_outlives_a_client_that_is_killed(world: World, state: Path) -> None:
    """Docker's own leaves the container running, and NanoClaw's time-out kills the client only."""
    words = recordings.v1(world.root, "family_chat")
    client = world.start(*words, stdin=recordings.message("family_chat", "hang"))
    assert client.stdout is not None
    assert client.stdout.readline()
    client.kill()
    client.communicate()
    # What NanoClaw does when it starts again: list, and stop each.
    for name in world.names():
        assert world.docker("stop", "-t", "1", name).returncode == 0
    assert eventually(world.quiet, 30)
    assert eventually(lambda: entries(state) == [], 30)
    assert world.names() == []


def test_a_session_of_version_2(world: World) -> None:
    root = world.root
    words = recordings.v2(root, "family_chat")
    client = world.start(*words, stdin=None)
    name = words[words.index("--name") + 1]
    await_names(world, name)
    template = '{{.Names}}|{{.State}}|{{.Label "nanoclaw-install"}}'
    label = f"label=nanoclaw-install={recordings.slug(root)}"
    listed = world.docker("ps", "--filter", label, "--format", template)
    assert listed.stdout.decode() == f"{name}|running|{recordings.slug(root)}\n"
    other = world.docker("ps", "--filter", "label=nanoclaw-install=0", "--format", template)
    assert (other.returncode, other.stdout) == (0, b"")
    session = root / "data/v2-sessions/family_chat/s1"
    assert eventually((session / ".heartbeat").exists, 30)
    assert (session / "outbox/config").read_text() == '{"provider": "claude"}'
    (session / "inbound").touch()
    out, err = client.communicate(timeout=30)
    assert (client.returncode, out) == (4, b"")
    assert err.endswith(b"done\n")
    assert not (session / "group").exists()


def test_limits_and_the_owners_word_are_stronger_than_nanoclaws(world: World) -> None:
    world.config.write_text(
        '[groups.family_chat]\nmemory = "64m"\nenv = { TZ = "UTC" }\nnetwork = "none"\n'
    )
    words = recordings.v1(world.root, "family_chat")
    words.remove("--add-host=host.docker.internal:host-gateway")
    words[1:1] = ["--pids-limit", "50", "--cap-drop=ALL", "--security-opt", "no-new-privileges"]
    client = world.start(*words, stdin=recordings.message("family_chat", "hang"))
    assert client.stdout is not None
    assert client.stdout.readline()
    assert world.engine is not None
    (instance,) = (name for name in world.engine.names() if name.startswith("claw-"))
    host = world.engine.inspect(instance)["HostConfig"]
    assert (host["Memory"], host["PidsLimit"], host["NetworkMode"]) == (64 << 20, 50, "none")
    assert client.stderr is not None
    assert client.stderr.readline() == b"runner: /home/node UTC\n"
    client.send_signal(signal.SIGTERM)
    client.communicate(timeout=30)
    assert client.returncode == 143


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("stop", "-t", "1", "nanoclaw-of-somebody-else-1"), 1, b"No such container"),
        (("kill", "nanoclaw-of-somebody-else-1"), 1, b"nothing was touched"),
        (("rm", "-f", "nanoclaw-of-somebody-else-1"), 1, b"No such container"),
        (("exec", "nanoclaw-of-somebody-else-1", "true"), 1, b"No such container"),
        (("logs", "nanoclaw-of-somebody-else-1"), 1, b"is not supported"),
    ],
)
def test_what_is_foreign_is_not_touched(
    world: World, words: tuple[str, ...], code: int, said: bytes
) -> None:
    assert world.engine is not None
    world.engine.call(
        "POST",
        "/containers/create",
        {"name": "nanoclaw-of-somebody-else-1"},
        {"Image": "nanoclaw-agent:latest", "HostConfig": {"NetworkMode": "none"}},
    )
    done = world.docker(*words)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "nanoclaw-of-somebody-else-1" in world.engine.names()
    assert world.names() == []


def test_a_container_of_another_installation_is_foreign(world: World, base: Path) -> None:
    other = World.make(base / "other", world.engine, "family_chat")
    words = recordings.v1(world.root, "family_chat")
    client = world.start(*words, stdin=recordings.message("family_chat", "hang"))
    assert client.stdout is not None
    assert client.stdout.readline()
    assert (world.names(), other.names()) == ([NAME], [])
    refused = other.docker("stop", NAME)
    assert (refused.returncode, b"nothing was touched" in refused.stderr) == (1, True)
    wrong = other.docker(*recordings.v1(world.root, "main"))
    assert wrong.returncode == 125
    assert b"which is no group of" in wrong.stderr
    assert client.poll() is None
    assert world.docker("rm", "--force", NAME).returncode == 0
    client.communicate(timeout=30)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--privileged"], "the option --privileged is not supported"),
        (["--network", "host"], "--network host is not supported"),
        (["--gpus=all"], "the option --gpus is not supported"),
        (["-d"], "the option -d is not supported"),
        (["--cap-drop=NET_RAW"], "claw drops every privilege itself"),
        (["-v", "volume:/data"], "-v volume:/data is not supported"),
        (["-v", "/nowhere:/data"], "cannot mount '/nowhere'"),
        (["-v", "/root/.ssh:/data"], "/root/.ssh"),
    ],
)
def test_what_the_shim_cannot_follow_is_refused(
    world: World, change: list[str], said: str, state: Path
) -> None:
    words = recordings.v1(world.root, "family_chat")
    words[1:1] = change
    done = world.docker(*words, stdin=recordings.message("family_chat", "hi"))
    assert done.returncode == 125
    assert said in done.stderr.decode()
    assert entries(state) == []


def test_an_image_that_is_not_there_is_named(world: World) -> None:
    words = recordings.v1(world.root, "family_chat")
    words[-1] = "nanoclaw-agent:other"
    world.config.write_text("[runtimes.docker]\npull = false\n")
    done = world.docker(*words)
    assert done.returncode == 125
    assert b"nanoclaw-agent:other" in done.stderr
