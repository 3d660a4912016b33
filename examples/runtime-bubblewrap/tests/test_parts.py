"""Its parts by themselves: refusals, and finding processes by what the kernel says of them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from claw_core.errors import ConfigError, RuntimeFault
from claw_core.model import Mount, Refusal, Resources, Spec
from claw_runtime_bubblewrap import processes, sandbox, scratch
from claw_runtime_bubblewrap.runtime import BubblewrapRuntime


def mounts(*targets: str) -> Spec:
    return Spec(mounts=tuple(Mount(Path("/usr"), target, writable=True) for target in targets))


@pytest.mark.parametrize(
    "spec",
    [
        Spec(image="debian"),
        Spec(resources=Resources(memory=1 << 30)),
        Spec(resources=Resources(cpus=1)),
        Spec(resources=Resources(processes=9)),
        *(mounts(target) for target in ("/", "//", "/proc", "/dev/shm", "/usr/local", "/run/x")),
        *(mounts(target) for target in ("/home", "/tmp/data", "/workspace/data", "/etc")),
        mounts("/data", "/data/inside"),
        mounts("/data/inside", "/data"),
        mounts("/data", "/data/"),
    ],
)
def test_what_it_cannot_do_is_refused_with_a_remedy(spec: Spec) -> None:
    answer = asyncio.run(BubblewrapRuntime({}).assess(spec))
    assert isinstance(answer, Refusal)
    assert answer.reason
    assert answer.remedy


@pytest.mark.parametrize(
    "spec", [Spec(), mounts("/workspace"), mounts("/tmp", "/home/agent"), mounts("/a", "/ab")]
)
def test_the_rest_is_not_refused(spec: Spec) -> None:
    assert sandbox.refusal(spec) is None


def test_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="colour"):
        BubblewrapRuntime({"colour": "red"})


@pytest.mark.parametrize("mode", [0o777, 0o750])
def test_a_place_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    place = scratch.place()
    place.mkdir(parents=True)
    place.chmod(mode)
    with pytest.raises(RuntimeFault, match="alone"):
        scratch.place()
    assert not asyncio.run(BubblewrapRuntime({}).describe()).available


def test_a_link_in_the_place_of_the_place_is_refused(tmp_path: Path) -> None:
    place = scratch.place()
    place.parent.mkdir()
    place.symlink_to(tmp_path)
    with pytest.raises(RuntimeFault, match="alone"):
        scratch.place()
    place.unlink()


def bwrap(directory: Path, command: str) -> list[str]:
    return [
        *("bwrap", "--bind", str(directory / "0"), "/run", "--unshare-all", "--ro-bind", "/usr"),
        *("/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
        *("--symlink", "usr/lib64", "/lib64", "--", "/usr/bin/sh", "-c", command),
    ]


def test_a_bwrap_that_lost_its_parent_is_found(tmp_path: Path) -> None:
    """As one that was killed before it asked for the signal: only its child is left."""
    name = f"claw-12345678-{uuid.uuid4().hex[:12]}"
    directory = tmp_path / name
    (directory / "0").mkdir(parents=True)
    with subprocess.Popen(
        bwrap(directory, "(setsid sleep 600 &); echo ready; sleep 600"), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    assert name in processes.names()
    scratch.fence(directory)
    assert name in processes.names()
    asyncio.run(processes.end(processes.mark(name)))
    assert name not in processes.names()
    late = subprocess.run(bwrap(directory, "true"), capture_output=True, check=False)
    assert late.returncode == 1
    assert b"No such file" in late.stderr


def test_a_process_that_only_mentions_an_instance_is_left_alone(tmp_path: Path) -> None:
    name = f"claw-12345678-{uuid.uuid4().hex[:12]}"
    argv = [sys.executable, "-c", "input()", "bwrap", "--bind", f"/x/{name}/0", "/run", ""]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        asyncio.run(processes.end(processes.mark(name)))
        assert process.poll() is None
        process.communicate(b"\n")
    assert process.returncode == 0
