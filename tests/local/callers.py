"""Who runs claw in these tests, and how a program in a sandbox says what it could do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

DRIVER = """
import asyncio, json, sys
from pathlib import Path
from claw_core import Capture, ClawError, Config, Router, Settings
from claw_core.model import Mount, Resources

async def main():
    asked = json.loads(sys.argv[1])
    mounts = [Mount(Path(s), t, writable=w, authorised=True) for s, t, w in asked.get("mounts", [])]
    engine = asked["engine"]
    notices = []
    config = Config.of(Settings(runtimes={"local": {"engine": engine}}))
    async with Router.open(
        config=config, listener=lambda event: notices.append(str(event))
    ) as router:
        try:
            async with router.session(
                runtime="local", network=asked.get("network"), mounts=mounts,
                env=asked.get("env", {}), resources=Resources(**asked.get("resources", {})),
            ) as session:
                answers = []
                for program in asked["programs"]:
                    out = Capture()
                    ended = await session.run(
                        ["/usr/bin/python3", "-c", program], stdout=out, stderr=out)
                    answers.append([ended.code, out.data.decode(errors="replace")])
            level = session.route.assessment.isolation.label
        except ClawError as error:
            answers, level = [[-1, f"{type(error).__name__}: {error}"]], "refused"
    print(json.dumps({"answers": answers, "level": level, "notices": notices}))

asyncio.run(main())
"""


class Caller:
    """Root, or an ordinary user; with a HOME, a ledger and a project of their own."""

    def __init__(self, uid: int, base: Path, python: str, path: Path) -> None:
        self.uid = uid
        self.base = base
        self.python = python
        self.project = base / "project"
        self.env = {
            "HOME": str(base / "home"),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(path),
            "CLAW_STATE": str(base / "state"),
        }

    def popen(self, *argv: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program of this caller."""
        return subprocess.Popen(
            argv,
            user=self.uid,
            group=self.uid,
            extra_groups=[],
            env=self.env,
            cwd=self.base,
            **options,
        )

    def python_program(self, program: str, *args: str, before: tuple[str, ...] = ()) -> bytes:
        """Run a Python program of this caller, outside of any sandbox."""
        with self.popen(
            *(*before, self.python, "-c", program, *args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err.decode()
        return out

    def attempt(
        self, engine: str, *programs: str, before: tuple[str, ...] = (), **asked: Any
    ) -> dict[str, Any]:
        """Run Python programs one after another in one sandbox."""
        wish = {**asked, "engine": engine, "programs": [PRELUDE + one for one in programs]}
        out = self.python_program(DRIVER, json.dumps(wish), before=before)
        result: dict[str, Any] = json.loads(out)
        return result

    def tried(self, engine: str, *lines: str, **asked: Any) -> list[str]:
        """Evaluate expressions in one sandbox; each gives its repr, or `REFUSED` and why."""
        result = self.attempt(engine, f"for line in {list(lines)!r}: attempt(line)", **asked)
        ((code, said),) = result["answers"]
        assert code == 0, said
        answers = [line for line in said.splitlines() if line.startswith("@ ")]
        assert len(answers) == len(lines), said
        return [line[2:] for line in answers]

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """Make a file in the project, owned by this caller."""
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        import os

        os.chown(path.parent, self.uid, self.uid)
        os.chown(path, self.uid, self.uid)
        return path


PRELUDE = """
import ctypes, errno, fcntl, os, resource, signal, socket, stat, struct, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = libc.syscall(*words)
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def attempt(line):
    try: print("@", repr(eval(line)), flush=True)
    except Exception as error: print("@ REFUSED", type(error).__name__, error, flush=True)
"""
