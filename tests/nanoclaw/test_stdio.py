"""`claw run --stdio` as a NanoClaw host sees it: outputs, follow-ups, ends, exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from claw_nanoclaw.protocol import END, START
from cli.support import CLAW, claw, entries, eventually
from nanoclaw.support import claw_toml, v1

STALE = re.compile(r"no conversation found|ENOENT.*\.jsonl|session.*not found", re.IGNORECASE)
"""How a NanoClaw host recognises that a session is gone (`src/index.ts`, 1.2.53)."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    v1(tmp_path, {"main": None, "finance": None})
    claw_toml(tmp_path)
    return tmp_path


def command(root: Path, *options: str) -> tuple[str, ...]:
    where = ("--root", str(root), "--config", str(root / "claw.toml"))
    return ("run", "--stdio", *where, *options)


def document(prompt: str, **others: Any) -> bytes:
    """What a host writes: one document, without a line's end."""
    value = {"prompt": prompt, "groupFolder": "finance", "chatJid": "1@g.us", "isMain": False}
    return json.dumps({**value, **others}).encode()


def parsed(text: bytes) -> list[Any]:
    """The outputs between the markers, as a host scans for them."""
    blocks = text.decode().split(f"{START}\n")[1:]
    return [json.loads(block.split(f"\n{END}")[0]) for block in blocks]


def output(stream: IO[bytes]) -> Any:
    """The next output, as soon as it is whole."""
    lines = [stream.readline() for _ in range(3)]
    assert (lines[0], lines[2]) == (f"{START}\n".encode(), f"{END}\n".encode()), lines
    return json.loads(lines[1])


@contextlib.contextmanager
def host(root: Path, prompt: str, **others: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A host that has written its document and listens."""
    argv = [*CLAW, *command(root)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(document(prompt, **others))
        process.stdin.close()
        try:
            yield process
        finally:
            process.kill()


def leave(root: Path, name: str, text: str | None = None) -> None:
    """Leave a file as the host does: under another name first."""
    folder = root / "data/ipc/finance/input"
    path = folder / f"{name}.tmp"
    path.write_text("" if text is None else json.dumps({"type": "message", "text": text}))
    path.rename(folder / name)


def test_a_conversation_with_follow_ups_until_the_host_wants_an_end(root: Path) -> None:
    leave(root, "_close")  # of an earlier run
    leave(root, "0-early.json", "early")
    with host(root, "all") as process:
        assert process.stdout is not None
        first = output(process.stdout)
        session = first["newSessionId"]
        assert first == {"status": "success", "result": "all|early", "newSessionId": session}
        idle = {"status": "success", "result": None, "newSessionId": session}
        assert output(process.stdout) == idle
        leave(root, "1-a.json", "count")
        assert output(process.stdout) == {**idle, "result": "prompt 2 of this session"}
        assert output(process.stdout) == idle
        leave(root, "_close")
        assert process.stdout.read() == b""
        assert process.wait(60) == 0
    assert os.listdir(root / "data/ipc/finance/input") == []


def test_an_end_that_is_wanted_during_an_answer_comes_after_it(root: Path) -> None:
    with host(root, "hold /workspace/group/go") as process:
        # A wish from before the start would be forgotten; this one comes while it is at work.
        assert eventually((root / "groups/finance/go.at-it").exists, 60)
        leave(root, "_close")
        (root / "groups/finance/go").touch()
        assert process.stdout is not None
        (only,) = parsed(process.stdout.read())
        assert only["result"] == "the first part, the second"
        assert process.wait(60) == 0


def test_a_session_that_is_gone_is_said_as_a_host_recognises_it(root: Path) -> None:
    stale = document("count", sessionId="11111111-1111-4111-8111-111111111111")
    done = claw(*command(root), stdin=stale)
    (failed,) = parsed(done.stdout)
    assert done.returncode == 1
    assert failed["status"] == "error"
    assert "newSessionId" not in failed
    assert STALE.search(failed["error"])


@pytest.mark.parametrize(
    ("stdin", "says"),
    [
        (b"", "it is no JSON"),
        (b"[1]", "expected a JSON object"),
        (b'{"groupFolder": "finance"}', "prompt: it is missing"),
        (document("x", isMain="yes", sessionId=7), "2 problems"),
        (document("x", secrets={"A": 1}), "secrets: expected an object of texts"),
        (document("a\0b"), "the prompt has a NUL byte"),
        (document(""), "the prompt is empty"),
        (document("x", groupFolder="nobody"), "no group 'nobody'"),
        (document("x", groupFolder="../finance"), "cannot be a group"),
        (document("x", groupFolder=None), "the input is for the group None"),
        (document("x", sessionId="-p"), "cannot be the id of a session"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_an_input_that_cannot_be_is_an_output_and_exit_2(
    root: Path, state: Path, stdin: bytes, says: str
) -> None:
    done = claw(*command(root), stdin=stdin)
    (failed,) = parsed(done.stdout)
    assert (done.returncode, failed["status"], failed["result"]) == (2, "error", None)
    assert says in failed["error"]
    assert says in done.stderr.decode()
    assert not (state / "runs.jsonl").exists()


def test_a_prompt_of_five_megabytes_arrives(root: Path) -> None:
    leave(root, "0-early.json", "more")
    prompt = "size\n" + "x" * (5 << 20)
    with host(root, prompt) as process:
        assert process.stdout is not None
        assert output(process.stdout)["result"] == f"{len(prompt) + 5} bytes"


def test_a_host_that_asks_for_an_end_with_a_signal_gets_it(root: Path, state: Path) -> None:
    with host(root, "sleep /workspace/group/at-it") as process:
        assert eventually((root / "groups/finance/at-it").exists, 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert entries(state) == []


def test_a_group_that_the_command_line_names_must_be_the_inputs(root: Path) -> None:
    done = claw(*command(root, "-g", "main"), stdin=document("count"))
    assert done.returncode == 2
    assert b"for the group 'finance', not for 'main'" in done.stderr


def test_a_directory_that_is_no_installation_is_said_so(tmp_path: Path) -> None:
    done = claw("run", "--stdio", "--root", tmp_path, stdin=document("x"))
    (failed,) = parsed(done.stdout)
    assert done.returncode == 2
    assert "is no NanoClaw installation" in failed["error"]
