"""A stand-in for `claude` in a hardened container; the real ones are in `tests/agents`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from agents.support import BIN
from cli.support import claw
from runtime_docker.engines import IMAGE, TestEngine


def test_an_agent_goes_on_in_another_container(
    engine: TestEngine, tmp_path: Path, state: Path
) -> None:
    (tmp_path / "groups/finance").mkdir(parents=True)
    shutil.copytree(BIN, tmp_path / "agents")
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o755)
    run = (
        *("run", "--root", tmp_path, "-g", "finance", "-r", "docker", "--image", IMAGE),
        *("--mount", f"{tmp_path}/agents:/agents", "-e", "PATH=/agents:/bin", "--network", "none"),
        *("--agent", "claude"),
    )
    env = {"DOCKER_HOST": engine.host, "ANTHROPIC_API_KEY": "canary-5309"}
    first = claw(*run, stdin=b"count", env=env)
    assert first.stdout == b"prompt 1 of this session\n", first.stderr
    (session,) = re.findall(rb"\[session: (.*)\]", first.stderr)
    second = claw(*run, "--session", session.decode(), stdin=b"count", env=env)
    assert second.stdout == b"prompt 2 of this session\n", second.stderr
    refused = claw(*run, stdin=b"variable ANTHROPIC_API_KEY", env=env)
    assert refused.stdout == b"canary-5309\n"
    install = (state / "install").read_text().strip()
    assert not [name for name in engine.names() if name.startswith(f"claw-{install}-")]
