"""An installation with its shim, on the engine of the tests."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import attrs

from claw_nanoclaw.shim import executable
from cli.support import eventually
from nanoclaw_shim import recordings
from runtime_docker.engines import TestEngine, add_file, busybox_root

RUNNER = r"""#!/bin/sh
input=$(cat)
out() { printf '%s\n%s\n%s\n' ---NANOCLAW_OUTPUT_START--- "$1" ---NANOCLAW_OUTPUT_END---; }
echo "runner: $HOME $TZ" >&2
case $input in
*fail*) echo "no such model" >&2; exit 3 ;;
*hang*) out '{"status":"success","result":"hanging","newSessionId":"s-2"}'; sleep 600 ;;
*touch*) echo "$ANTHROPIC_API_KEY" > /workspace/group/note; echo x > /workspace/ipc/input/x ;;
*look*)
    cd /workspace/project && [ -z "$(cat .env)" ] && echo hidden >&2
    touch /workspace/project/new 2>/dev/null || echo readonly >&2 ;;
esac
[ -w /tmp ] && [ -w /workspace/group ] || exit 9
out '{"status":"success","result":"one","newSessionId":"s-1"}'
out '{"status":"success","result":null,"newSessionId":"s-1"}'
"""
"""Speaks like NanoClaw's runner in its image."""
BUN = r"""#!/bin/sh
[ "$1 $2" = "run /app/src/index.ts" ] || exit 8
cat /workspace/agent/container.json > /workspace/outbox/config
echo x > /workspace/agent/container.json 2>/dev/null && exit 7
touch /workspace/.heartbeat
[ -e /workspace/group ] && exit 6
while ! [ -e /workspace/inbound ]; do sleep 0.05; done
echo "done" >&2
exit 4
"""
"""Behaves like the runner of version 2, until its session gets a file."""


STARTED: list[subprocess.Popen[bytes]] = []
"""Clients that the test at hand has started; they end with it."""


def images(engine: TestEngine, *slugs: str) -> None:
    """Import images that look like NanoClaw's, once per engine."""
    wanted = {"nanoclaw-agent:latest", *(f"nanoclaw-agent-v2-{one}:latest" for one in slugs)}
    for name in wanted - set(engine.images()):
        buffer = io.BytesIO(busybox_root())
        with tarfile.open(fileobj=buffer, mode="a") as archive:
            add_file(archive, "app/entrypoint.sh", RUNNER.encode(), 0o755)
            add_file(archive, "bin/bun", BUN.encode(), 0o755)
            add_file(archive, "bin/bash", b'#!/bin/sh\nexec sh "$@"\n', 0o755)
        changes = ("ENV PATH=/bin", 'ENTRYPOINT ["/app/entrypoint.sh"]', "WORKDIR /workspace/group")
        engine.import_image(buffer.getvalue(), name, *changes)


@attrs.frozen
class World:
    """An installation, and what its service's PATH is.

    Attributes:
        root: the installation.
        config: the `claw.toml` that decides.
        folder: where the shim is.
        engine: where containers are, or None where the real command is a fake.
    """

    root: Path
    config: Path
    folder: Path
    engine: TestEngine | None = None
    path: str = "/usr/bin:/bin"

    @classmethod
    def make(cls, base: Path, engine: TestEngine | None, *groups: str, toml: str = "") -> World:
        """Write an installation with its shim."""
        root = recordings.installation(base / "nanoclaw", *groups).resolve()
        config = base / "claw.toml"
        config.write_text(toml)
        executable.write(root, root / executable.FOLDER, config)
        if engine is not None:
            images(engine, recordings.slug(root))
        return cls(root, config, root / executable.FOLDER, engine)

    @property
    def environment(self) -> Mapping[str, str]:
        """Of the service."""
        host = {"DOCKER_HOST": self.engine.host} if self.engine else {}
        return {**os.environ, "PATH": f"{self.folder}:{self.path}", **host}

    def docker(
        self, *words: str, stdin: bytes = b"", tool: str = "docker"
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the shim to its end, as NanoClaw would."""
        return subprocess.run(
            [tool, *words],
            executable=str(self.folder / tool),
            input=stdin,
            capture_output=True,
            env=self.environment,
            cwd=self.root,
            timeout=60,
            check=False,
        )

    def start(self, *words: str, stdin: bytes | None = b"") -> subprocess.Popen[bytes]:
        """Start the shim, with its input written and ended, as NanoClaw does."""
        process = subprocess.Popen(
            ["docker", *words],
            executable=str(self.folder / "docker"),
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd=self.root,
        )
        STARTED.append(process)
        if stdin is not None:
            assert process.stdin is not None
            process.stdin.write(stdin)
            process.stdin.close()
            process.stdin = None  # there is nothing left for `communicate` to write
        return process

    def claw(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `claw` with the service's environment."""
        return subprocess.run(
            [sys.executable, "-c", CLAW, *words],
            capture_output=True,
            env=self.environment,
            cwd=self.root,
            text=True,
            timeout=60,
            check=False,
        )

    def names(self, *words: str) -> list[str]:
        """What `ps` answers to NanoClaw."""
        template = ("--format", "{{.Names}}")
        done = self.docker("ps", "--filter", "name=nanoclaw-", *template, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().split()

    def quiet(self) -> bool:
        """Whether the engine has no instance of claw any more."""
        assert self.engine is not None
        return not any(name.startswith("claw-") for name in self.engine.names())


CLAW = """
import sys
from claw_core.__main__ import main
from claw_core.cli import claw
from claw_nanoclaw.commands import command
claw.add_command(command)
main()
"""
"""`claw` with the command, also where this package's metadata is not installed."""


def await_names(world: World, *names: str) -> None:
    """Wait until NanoClaw would see exactly these containers."""
    assert eventually(lambda: world.names() == list(names)), world.names()
