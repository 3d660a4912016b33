"""What is not NanoClaw's reaches the real command untouched."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from claw_core.errors import ClawError, ConfigError
from claw_nanoclaw.shim import executable, front
from nanoclaw_shim.world import World

REAL = """#!/bin/sh
for word; do printf '%s\\0' "$word"; done
cat
echo noise >&2
exit 42
"""

THEIRS = (
    (),
    ("ps", "-q"),
    ("info",),
    ("ps", "-a", "--filter", "label=com.docker.compose.project=onecli", "--format", "{{.Names}}"),
    ("rm", "-f", "onecli", "postgres"),
    ("stop", "-t", "1", "postgres"),
    ("build", "-t", "nanoclaw-agent:latest", "-f", "a b/Dockerfile", "."),
    ("image", "inspect", "nanoclaw-agent:latest"),
    ("run", "-i", "--rm", "--entrypoint", "/bin/echo", "nanoclaw-agent:latest", "Container OK"),
    ("run", "--name", "db", "-e", "NAME=nanoclaw-x", "img", "", "ü\n", "'\"$HOME"),
    ("compose", "up"),
)
OURS = (
    ("run", "-i", "--rm", "--name", "nanoclaw-family-1", "img"),
    ("run", "--name=nanoclaw-v2-family-1", "img"),
    ("run", "--rm", "--label", "nanoclaw-install=0a1b2c3d", "img"),
    ("create", "--name", "ncl-0a1b2c3d-s1", "img"),
    ("stop", "-t", "1", "nanoclaw-family-1"),
    ("rm", "--force", "nanoclaw-family-1"),
    ("ps", "--filter", "name=nanoclaw-", "--format", "{{.Names}}"),
    ("ps", "-a", "--filter=label=nanoclaw-install=0a1b2c3d"),
)


@pytest.fixture
def world(base: Path) -> World:
    """An installation in front of a real command that is a fake."""
    folder = base / "real"
    folder.mkdir()
    for tool in executable.TOOLS:
        (folder / tool).write_text(REAL)
        (folder / tool).chmod(0o755)
    world = World.make(base, None, "family")
    return World(world.root, world.config, world.folder, path=f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize("words", THEIRS, ids=" ".join)
def test_the_real_command_gets_every_byte(world: World, words: tuple[str, ...]) -> None:
    assert not front.ours("docker", list(words))
    done = world.docker(*words, stdin=b"in\0put")
    expected = b"".join(word.encode() + b"\0" for word in words) + b"in\0put"
    assert (done.returncode, done.stdout, done.stderr) == (42, expected, b"noise\n")


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_what_is_nanoclaws_goes_to_claw(words: tuple[str, ...]) -> None:
    assert front.ours("docker", list(words))


def test_what_is_named_like_a_container_is_inspected_by_the_real_command(world: World) -> None:
    done = world.docker("inspect", "--format", "{{.Id}}", "nanoclaw-agent:latest")
    assert done.stdout.split(b"\0")[0] == b"inspect"
    assert done.stdout.split(b"\0")[-2] == b"nanoclaw-agent:latest"


def test_the_real_command_is_the_next_one_on_the_path(base: Path) -> None:
    for name in ("one", "two", "three"):
        (base / name).mkdir()
        (base / name / "docker").write_text("")
        (base / name / "docker").chmod(0o755)
    one, two, three = (str(base / name) for name in ("one", "two", "three"))
    find = front.behind
    assert find("docker", f"{two}/docker", f"{one}:{two}::{three}") == f"{three}/docker"
    assert find("docker", f"{two}/docker", f"{one}:{two}/:{three}") == f"{three}/docker"
    (base / "four").symlink_to(two)
    assert find("docker", f"{two}/docker", f"{one}:{base}/four:{three}") == f"{three}/docker"
    (base / "five/docker").mkdir(parents=True)
    assert find("docker", f"{two}/docker", f"{two}:{base}/five:{three}") == f"{three}/docker"
    # Called by its path: the first that is not itself.
    assert find("docker", f"{two}/docker", f"{one}:{three}") == f"{one}/docker"
    (base / "two/link").symlink_to(base / "one/docker")
    assert find("link", f"{one}/docker", two) == ""
    assert find("docker", f"{three}/docker", f"{one}:{two}:{three}:/nowhere") == ""


def test_two_shims_in_a_row_end_at_the_real_command(world: World, base: Path) -> None:
    executable.write(world.root, base / "second", None)
    chained = World(world.root, world.config, base / "second", path=f"{world.folder}:{world.path}")
    assert chained.docker("version").stdout == b"version\0"


def test_without_a_real_command_claw_says_so(base: Path) -> None:
    world = World.make(base, None, "family")
    world = World(world.root, world.config, world.folder, path="/nonexistent")
    done = world.docker("build", ".")
    assert (done.returncode, done.stdout) == (127, b"")
    assert b"there is no docker on the PATH but this shim" in done.stderr
    assert world.docker("info").returncode == 0
    assert world.docker("system", "status", tool="container").returncode == 0
    assert world.docker("ls", "--format", "json", tool="container").stdout == b"[]\n"


def test_an_interpreter_whose_path_no_kernel_reads(world: World, base: Path) -> None:
    python = base / "it's a long way" / ("x" * 120) / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    executable.write(world.root, base / "bin", None, str(python))
    assert (base / "bin/docker").read_text().startswith("#!/bin/sh\n")
    odd = World(world.root, world.config, base / "bin", path=world.path)
    done = odd.docker("tag", "x y", "'", stdin=b"in")
    assert (done.returncode, done.stdout) == (42, b"tag\0x y\0'\0in")


def test_what_others_have_written_is_left_alone(base: Path) -> None:
    (base / "docker").write_text("#!/bin/sh\n")
    with pytest.raises(ConfigError, match="was not written by claw"):
        executable.write(base, base, None)
    assert os.listdir(base) == ["docker"]
    (base / "file").write_text("")
    with pytest.raises(ClawError, match="cannot write"):
        executable.write(base, base / "file", None)


def test_it_is_written_again_over_itself(base: Path) -> None:
    executable.write(base, base / "bin", None)
    executable.write(base, base / "bin", base / "claw.toml")
    assert sorted(os.listdir(base / "bin")) == ["container", "docker"]
    assert repr(str(base / "claw.toml")) in (base / "bin/docker").read_text()
