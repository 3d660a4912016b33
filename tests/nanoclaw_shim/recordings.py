"""What NanoClaw's host really sends: the argument vectors and the JSON of 1.2.53 and 2.0.64."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

START, END = "---NANOCLAW_OUTPUT_START---", "---NANOCLAW_OUTPUT_END---"


def installation(root: Path, *groups: str) -> Path:
    """An installation with these groups, as NanoClaw makes its directories."""
    (root / "package.json").parent.mkdir(parents=True, exist_ok=True)
    (root / "package.json").write_text('{"name": "nanoclaw", "version": "1.2.53"}')
    (root / ".env").write_text("")
    for name in ("global", *groups):
        folders = (
            f"groups/{name}",
            f"data/ipc/{name}/input",
            f"data/sessions/{name}/.claude",
            f"data/sessions/{name}/agent-runner-src",
            f"data/v2-sessions/{name}/s1/outbox",
            f"data/v2-sessions/{name}/.claude-shared",
        )
        for folder in folders:
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder).chmod(0o777)  # its containers run as the image's user
        (root / f"data/v2-sessions/{name}/s1").chmod(0o777)
        (root / f"groups/{name}/container.json").write_text('{"provider": "claude"}')
        (root / f"groups/{name}/CLAUDE.md").write_text("be kind\n")
    for folder in ("store", "container/agent-runner/src", "container/skills"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "container/CLAUDE.md").write_text("you are in a container\n")
    return root


def v1(root: Path, group: str, millis: int = 1764355200000) -> list[str]:
    """`docker run` for a group of version 1 on Linux, with the variables of its gateway."""
    shared = ["-v", f"{root}/groups/global:/workspace/global:ro"]
    return _v1(root, group, millis, shared)


def v1_main(root: Path, millis: int = 1764355200000) -> list[str]:
    """The same for the main group, which sees the project with `.env` hidden."""
    project = [
        "-v", f"{root}:/workspace/project:ro",
        "-v", "/dev/null:/workspace/project/.env:ro",
        "-v", f"{root}/store:/workspace/project/store",
        "-v", f"{root}/groups/global:/workspace/global",
    ]  # fmt: skip
    return _v1(root, "main", millis, project)


def _v1(root: Path, group: str, millis: int, mounts: list[str]) -> list[str]:
    name = re.sub("[^a-zA-Z0-9-]", "-", group)
    return [
        "run", "-i", "--rm", "--name", f"nanoclaw-{name}-{millis}",
        "-e", "TZ=Europe/Vienna",
        "-e", "ANTHROPIC_BASE_URL=http://host.docker.internal:3001",
        "-e", "ANTHROPIC_API_KEY=placeholder",
        "--add-host=host.docker.internal:host-gateway",
        *mounts,
        "-v", f"{root}/groups/{group}:/workspace/group",
        "-v", f"{root}/data/sessions/{group}/.claude:/home/node/.claude",
        "-v", f"{root}/data/ipc/{group}:/workspace/ipc",
        "-v", f"{root}/data/sessions/{group}/agent-runner-src:/app/src",
        "nanoclaw-agent:latest",
    ]  # fmt: skip


def v1_apple(root: Path, group: str, millis: int = 1764355200000) -> list[str]:
    """What a NanoClaw with its skill for Apple's container starts for a group of version 1."""
    words = v1(root, group, millis)
    words.remove("--add-host=host.docker.internal:host-gateway")
    words[words.index("ANTHROPIC_BASE_URL=http://host.docker.internal:3001")] = (
        "ANTHROPIC_BASE_URL=http://192.168.64.1:3001"
    )
    at = words.index(f"{root}/groups/global:/workspace/global:ro")
    words[at - 1 : at + 1] = (
        "--mount",
        f"type=bind,source={root}/groups/global,target=/workspace/global,readonly",
    )
    return words


def message(group: str, prompt: str, session: str | None = None) -> bytes:
    """What the host of version 1 writes to standard input, without a newline, before its end."""
    value = {
        "prompt": f"<messages>{prompt}</messages>",
        "groupFolder": group,
        "chatJid": "123@g.us",
        "isMain": group == "main",
        "isScheduledTask": False,
        "assistantName": "Andy",
    }
    return json.dumps(value | ({"sessionId": session} if session else {})).encode()


def v2(root: Path, group: str, millis: int = 1764355200000) -> list[str]:
    """`docker run` for a session of version 2 on Linux."""
    return [
        "run", "--rm", "--name", f"nanoclaw-v2-{group}-{millis}",
        "--label", f"nanoclaw-install={slug(root)}",
        "-e", "TZ=Europe/Vienna",
        "--add-host=host.docker.internal:host-gateway",
        "-v", f"{root}/data/v2-sessions/{group}/s1:/workspace",
        "-v", f"{root}/groups/{group}:/workspace/agent",
        "-v", f"{root}/groups/{group}/container.json:/workspace/agent/container.json:ro",
        "-v", f"{root}/groups/{group}/CLAUDE.md:/workspace/agent/CLAUDE.md:ro",
        "-v", f"{root}/groups/global:/workspace/global:ro",
        "-v", f"{root}/container/CLAUDE.md:/app/CLAUDE.md:ro",
        "-v", f"{root}/data/v2-sessions/{group}/.claude-shared:/home/node/.claude",
        "-v", f"{root}/container/agent-runner/src:/app/src:ro",
        "-v", f"{root}/container/skills:/app/skills:ro",
        "--entrypoint", "bash", f"nanoclaw-agent-v2-{slug(root)}:latest",
        "-c", "exec bun run /app/src/index.ts",
    ]  # fmt: skip


def slug(root: Path) -> str:
    """How version 2 tells installations apart."""
    return hashlib.sha1(str(root).encode()).hexdigest()[:8]


def outputs(stdout: bytes) -> list[dict[str, object]]:
    """What the host of version 1 finds between the markers."""
    found = []
    for part in stdout.decode().split(f"{START}\n")[1:]:
        text, _, _ = part.partition(f"\n{END}\n")
        found.append(json.loads(text))
    return found
