"""`claw run --agent`: what arrives on which stream, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agents.support import configure
from cli.support import CLAW, claw, hiding, install

PLUGIN = """
from claw_core.agents import Agent

SCRIPT = '''read line; printf '{"text":"%s %s"}' "$line" "$0"'''

def read(event, reading):
    reading.begin()
    return reading.say(event["text"])

parrot = Agent("parrot", ("sh", "-c", SCRIPT), ("false",), read, (".parrot",), "not found")
"""
SESSION = re.compile(rb"^\[session: ([0-9a-f-]{36})\]$", re.MULTILINE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    configure(tmp_path)
    return tmp_path


def asked(
    root: Path, *options: str, stdin: bytes = b"", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Ask for the group `finance`."""
    where = ("--root", str(root), "--config", str(root / "claw.toml"), "-g", "finance")
    return claw("run", *where, *options, stdin=stdin, env=env)


def test_the_answer_is_standard_output_and_the_session_goes_on(root: Path, state: Path) -> None:
    first = asked(root, "--agent", "claude", stdin=b"count\n")
    assert (first.returncode, first.stdout) == (0, b"prompt 1 of this session\n"), first.stderr
    (session,) = SESSION.findall(first.stderr)
    options = ("--agent", "claude", "-p", "count", "--session", session.decode())
    second = asked(root, *options)
    assert second.stdout == b"prompt 2 of this session\n"
    assert SESSION.findall(second.stderr) == [session]
    assert second.stderr.count(b"\n") == 1
    quiet = asked(root, "-q", *options)
    assert (quiet.stdout, quiet.stderr) == (b"prompt 3 of this session\n", b"")
    shown = json.loads(asked(root, "--json", *options).stdout)
    assert shown["agent"] == {
        "name": "claude",
        "session": session.decode(),
        "answer": "prompt 4 of this session",
        "error": None,
        "cost": 0.25,
    }
    assert (shown["group"], shown["exit"], shown["teardown"]) == ("finance", 0, "gone")
    assert (shown["network"], shown["stderr"], shown["error"]) == ("default", "", None)
    assert b"count" not in (state / "runs.jsonl").read_bytes()


def test_the_answer_comes_while_the_agent_is_still_at_it(root: Path) -> None:
    """The agent goes on only when its first part has been read here."""
    where = ("--root", str(root), "--config", str(root / "claw.toml"), "-g", "finance")
    command = [*CLAW, "run", *where, "--agent", "claude", "-p", "hold /workspace/group/go"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 100) == b"the first part, "
        (root / "groups/finance/go").touch()
        assert process.stdout.read() == b"the second\n"
        assert process.wait(60) == 0


def test_the_configured_agent_is_asked_where_none_is_named(root: Path) -> None:
    by_environment = asked(root, stdin=b"say it", env={"AGENT_RUNTIME": "claude"})
    assert by_environment.stdout == b"it\n", by_environment.stderr
    configure(root, "agent = 'codex'", "[groups.finance]", "agent = 'claude'")
    by_group = asked(root, "-p", "model", "--", "--model", "opus")
    assert by_group.stdout == b"opus\n"


def test_an_agent_that_fails_is_exit_1_with_its_reason_once(root: Path) -> None:
    env = {"ANTHROPIC_API_KEY": "k"}
    failed = asked(root, "--agent", "claude", "-p", "fail", env=env)
    assert (failed.returncode, failed.stdout) == (1, b"")
    assert failed.stderr.startswith(b"claw: claude: API Error: 529 overloaded\n[session: ")
    died = asked(root, "--agent", "claude", "-p", "die", env=env)
    assert died.returncode == 9
    assert died.stderr.startswith(b"out of memory\nclaw: claude: it ended with code 9\n")
    # Its command ended with 0, and there is no answer.
    assert asked(root, "--agent", "claude", "-p", "nothing").returncode == 1


def test_a_lost_session_is_said_so(root: Path) -> None:
    unknown = "11111111-1111-4111-8111-111111111111"
    lost = asked(root, "--agent", "claude", "-p", "count", "--session", unknown)
    assert lost.returncode == 1
    assert f"claw: claude: session {unknown} not found\n".encode() in lost.stderr
    assert not SESSION.search(lost.stderr)


def test_a_deadline_is_exit_124_with_the_session_to_go_on_with(root: Path) -> None:
    stopped = asked(root, "--agent", "claude", "-p", "sleep /tmp/at-it", "--timeout", "1s")
    assert stopped.returncode == 124
    (session,) = SESSION.findall(stopped.stderr)
    again = asked(root, "--agent", "claude", "-p", "count", "--session", session.decode())
    assert again.stdout == b"prompt 2 of this session\n"


def test_a_prompt_of_five_megabytes_arrives_and_is_in_no_argument(root: Path) -> None:
    prompt = b"size\n" + b"x" * (5 << 20)
    done = asked(root, "--agent", "claude", stdin=prompt)
    assert done.stdout == f"{len(prompt)} bytes\n".encode(), done.stderr


@pytest.mark.parametrize(
    ("options", "stdin", "why"),
    [
        (("--agent", "claude"), b"a\0b", b"NUL"),
        (("--agent", "claude"), b"\xff", b"not UTF-8 (byte 0)"),
        (("--agent", "claude"), b"", b"empty"),
        (("--agent", "claude"), b"x" * ((32 << 20) + 1), b"more than 33554432 bytes"),
        (("--agent", "cladue"), b"x", b"no agent 'cladue'; there are claude, codex"),
        (("-p", "x"), b"", b"no agent is configured"),
        (("--agent", "claude", "-t"), b"x", b"has no terminal"),
        (("--stdio", "--json"), b"{}", b"leave --json"),
        ((), b"", b"name a COMMAND to run, or an agent"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_is_exit_2_and_starts_nothing(
    root: Path, state: Path, options: tuple[str, ...], stdin: bytes, why: bytes
) -> None:
    done = asked(root, *options, stdin=stdin)
    assert (done.returncode, done.stdout) == (2, b"")
    assert why in done.stderr
    assert not (state / "runs.jsonl").exists()


def test_an_agent_of_a_plugin_is_asked_by_its_name(root: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, "fake-parrot", "parrot = fake_parrot:parrot", PLUGIN, "claw.plugins")
    env = {"PYTHONPATH": os.pathsep.join([str(site), *sys.path])}
    done = asked(root, "--agent", "parrot", "-p", "hello", "--", "again", env=env)
    assert (done.returncode, done.stdout) == (0, b"hello again\n"), done.stderr


def test_stdio_without_the_plugin_says_what_to_install(root: Path, tmp_path: Path) -> None:
    done = asked(root, "--stdio", stdin=b"{}", env=hiding(tmp_path, "claw-nanoclaw"))
    assert done.returncode == 2
    assert b"pip install claw-nanoclaw" in done.stderr
