"""In a mount no file can be left that gives its owner's rights to others."""

from __future__ import annotations

import json
import platform
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from claw_core.local.syscalls import ALLOWED, REFUSED
from claw_core.model import Mount
from claw_runtime_docker.container import PROFILE
from runtime_docker.engines import TestEngine
from runtime_docker.support import run, session, shell

PROGRAM = Path(__file__).with_name("set_ids.c")
SET_IDS = stat.S_ISUID | stat.S_ISGID


@pytest.fixture(params=["docker", "podman"])
def either(request: pytest.FixtureRequest) -> TestEngine:
    return request.getfixturevalue("engine" if request.param == "docker" else "podman")  # type: ignore[no-any-return]  # by their annotations


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that everybody may write to, with a program that tries every way there is."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    folder = tmp_path / "mount"
    folder.mkdir()
    subprocess.run(["gcc", "-static", "-no-pie", "-o", folder / "try", PROGRAM], check=True)
    folder.chmod(0o777)
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o755)
    return folder


@pytest.mark.parametrize("settings", [{}, {"user": "0", "capabilities": ["FSETID", "FOWNER"]}])
def test_no_set_user_id_file_is_left_in_a_mount(
    either: TestEngine, folder: Path, settings: dict[str, object]
) -> None:
    async def work() -> str:
        mounts = [Mount(folder, "/mount", writable=True, authorised=True)]
        image = next(name for name in either.images() if "claw-test:" in name)
        async with session(either, settings=settings, image=image, mounts=mounts) as s:
            said = await shell(s, "cd /mount; ./try || echo killed; chmod 4755 try; ls -l try")
            # Everything else goes on as ever.
            await shell(s, "touch a; chmod 755 a; mkdir -m 700 b; ln a c; mv a d", workdir="/mount")
            return said

    said = run(work())
    left = [path.name for path in folder.iterdir() if path.stat().st_mode & SET_IDS]
    assert left == []
    assert "chmod -1" in said
    if platform.machine() == "x86_64":
        assert "killed" in said  # calls of another architecture are numbered differently


def test_the_filter_names_what_the_local_sandbox_names() -> None:
    rules = json.loads(PROFILE.read_text())["syscalls"]
    allowed = {n for r in rules if r["action"] == "SCMP_ACT_ALLOW" for n in r["names"]}
    refused = {n for r in rules if r["action"] == "SCMP_ACT_ERRNO" for n in r["names"]}
    debugging = {"pidfd_getfd", "process_vm_readv", "process_vm_writev", "ptrace"}
    assert allowed == (set(ALLOWED) | debugging) - {"fchmodat2"}
    assert refused == (set(REFUSED) - debugging) | {"clone3", "fchmodat2", "openat2"}
