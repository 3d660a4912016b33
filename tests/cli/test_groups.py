"""Groups from the command line: what runs for them, and what their agents cannot bring about."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from claw_core.registry import Registry
from cli.support import claw

WRITE = "import pathlib, sys; pathlib.Path('config.json').write_text(sys.argv[1])"
"""An agent that rewrites its own group's file."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The mixed setup of a NanoClaw owner, with one group that can run here."""
    (tmp_path / ".env").write_text("CONTAINER_RUNTIME=container\n")
    for group, config in {
        "finance": {"runtime": "tart", "timeout": 600_000},
        "personal": {"runtime": "docker"},
        "family": None,
        "here": {"runtime": "local"},
    }.items():
        folder = tmp_path / "groups" / group
        folder.mkdir(parents=True)
        if config is not None:
            (folder / "config.json").write_text(json.dumps({"containerConfig": config}))
    return tmp_path


def explained(root: Path, group: str, *options: str) -> dict[str, Any]:
    done = claw("explain", "--root", root, "--json", *options, group)
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


@pytest.mark.parametrize(
    ("group", "runtime", "origin"),
    [
        ("finance", "tart", "groups/finance/config.json: containerConfig.runtime"),
        ("personal", "docker", "groups/personal/config.json: containerConfig.runtime"),
        ("family", "apple", ".env: CONTAINER_RUNTIME"),
    ],
)
def test_the_mixed_setup_is_explained_with_what_to_install(
    root: Path, group: str, runtime: str, origin: str
) -> None:
    found = explained(root, group)
    assert found["settings"]["runtime"]["origin"] == origin
    if group == "finance":
        assert found["settings"]["timeout"]["value"] == "600s"
    shown = claw("explain", "--root", root, group).stdout.decode()
    assert origin in shown
    if runtime in Registry().names():
        return  # what it answers depends on this machine
    assert found["runtime"] is None
    (candidate,) = found["not_taken"]
    assert candidate == {
        "runtime": runtime,
        "reason": "it is not installed",
        "remedy": f"pip install claw-runtime-{runtime}",
    }
    assert f"pip install claw-runtime-{runtime}" in shown
    refused = claw("run", "--root", root, "-g", group, "--", "true")
    assert refused.returncode == 2
    assert f"pip install claw-runtime-{runtime}".encode() in refused.stderr


def test_a_group_that_can_run_is_explained(root: Path) -> None:
    found = explained(root, "here")
    assert found["runtime"] == "local"
    assert found["network"] == "none"
    assert found["trust"] == {"used": False, "pending": []}
    assert explained(root, "finance", "-r", "local")["runtime"] == "local"


def test_a_run_for_a_group_works_in_its_folder(root: Path, state: Path) -> None:
    done = claw("run", "--root", root, "-g", "here", "--", "sh", "-c", "pwd; echo a > b; ls /")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().split()
    assert lines[0] == "/workspace/group"
    assert (root / "groups/here/b").read_text() == "a\n"
    (line,) = (state / "runs.jsonl").read_text().splitlines()
    assert json.loads(line)["group"] == "here"


def test_a_groups_timeout_holds(root: Path) -> None:
    config = {"containerConfig": {"runtime": "local", "timeout": 300}}
    (root / "groups/here/config.json").write_text(json.dumps(config))
    done = claw("run", "--root", root, "-g", "here", "--", "sleep", "600")
    assert done.returncode == 124


def test_what_claw_toml_says_of_a_group_reaches_the_command(root: Path) -> None:
    (root / "claw.toml").write_text(
        '[env]\nA = "all"\nB = "all"\n[groups.here]\nworkdir = "/tmp"\nsecrets = ["KEY"]\n'
        "[groups.here.env]\nB = 'here'\n"
    )
    with (root / ".env").open("a") as file:
        file.write("KEY=canary-5309\n")
    script = 'echo $A $B "${#KEY}"; pwd'
    done = claw(
        *("run", "--root", root, "--config", root / "claw.toml", "-g", "here"),
        *("--", "sh", "-c", script),
    )
    assert done.stdout.decode() == "all here 11\n/tmp\n", done.stderr


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"runtime": "auto"}, "runtime: local -> auto"),
        ({"image": "evil"}, "image: not set -> evil"),
        (
            {"additionalMounts": [{"hostPath": "/etc"}]},
            "mount /etc at /workspace/extra/etc: added",
        ),
        ({"env": {"LD_PRELOAD": "/x"}}, "variable LD_PRELOAD: added"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_agent_that_edits_its_own_file_is_refused_with_the_difference(
    root: Path, change: dict[str, Any], difference: str
) -> None:
    text = json.dumps({"containerConfig": {"runtime": "local", **change}})
    run = ("run", "--root", root, "-g", "here", "--")
    first = claw(*run, "python3", "-c", WRITE, text)
    assert first.returncode == 0, first.stderr
    second = claw(*run, "touch", "ran")
    assert second.returncode == 2
    assert difference in second.stderr.decode()
    assert not (root / "groups/here/ran").exists()
    pending = explained(root, "here", "-r", "local")["trust"]["pending"]
    assert pending == [difference]
    doctor = claw("doctor", "--root", root)
    assert doctor.returncode == 1
    assert f"not accepted: {difference}" in doctor.stdout.decode()


def test_an_agent_that_leads_its_mount_elsewhere_is_refused(root: Path) -> None:
    """Inside an allowed root, where the policy alone would let it."""
    public = root / "public"
    for name in ("site/data", "private"):
        (public / name).mkdir(parents=True)
    (public / "private/f").write_text("canary")
    (root / "claw.toml").write_text(
        f'[mount_policy]\nallowed_roots = [{{ path = "{public}", writable = true }}]\n'
    )
    mounts = [
        {"hostPath": str(public / "site"), "readonly": False},
        {"hostPath": str(public / "site/data"), "containerPath": "data"},
    ]
    config = {"containerConfig": {"runtime": "local", "additionalMounts": mounts}}
    (root / "groups/here/config.json").write_text(json.dumps(config))
    run = ("run", "--root", root, "--config", root / "claw.toml", "-g", "here", "--", "sh", "-c")
    swap = "cd /workspace/extra/site && mv data old && ln -s ../private data"
    first = claw(*run, swap)
    assert first.returncode == 0, first.stderr
    second = claw(*run, "cat /workspace/extra/data/f")
    assert second.returncode == 2
    assert f"mount {public}/private at /workspace/extra/data: added" in second.stderr.decode()
    assert b"canary" not in second.stdout


def test_mounts_do_not_cover_each_other_whoever_asks_for_them(root: Path) -> None:
    for name in ("top", "deep", "here"):
        (root / name).mkdir()
        (root / name / name).touch()
    (root / "top/site").mkdir()
    (root / "claw.toml").write_text(f'mounts = ["{root}/deep:/mnt/top/site"]\n')
    run = ("run", "-r", "local", "--config", root / "claw.toml")
    done = claw(*run, "--mount", f"{root}/top:/mnt/top", "--", "ls", "/mnt/top/site")
    assert done.stdout == b"deep\n"
    for target, listed in (("/workspace", "top"), ("/workspace/site", "deep")):
        name = "top" if target == "/workspace" else "deep"
        (root / "claw.toml").write_text(f'mounts = ["{root}/{name}:{target}"]\n')
        done = claw(*run, "--", "ls", target, cwd=root / "here")
        assert listed in done.stdout.decode()


def test_a_working_directory_that_may_not_be_shown_is_left_out(root: Path) -> None:
    (root / ".aws").mkdir()
    done = claw("run", "-r", "local", "--", "ls", "/workspace", cwd=root / ".aws")
    assert (done.returncode, done.stdout) == (0, b"")


def test_a_link_to_a_blocked_place_is_blocked_on_the_command_line(root: Path) -> None:
    (root / "plain").mkdir()
    (root / ".aws").symlink_to("plain")
    done = claw("run", "-r", "local", "--mount", f"{root}/.aws:/x", "--", "ls", "/x")
    assert done.returncode == 2
    assert b"is never mounted" in done.stderr


def test_a_dotenv_of_the_working_directory_is_for_groups_only(root: Path) -> None:
    with (root / ".env").open("a") as file:
        file.write("no assignment\n")
    assert claw("run", "-r", "local", "--", "true", cwd=root).returncode == 0
    assert json.loads(claw("explain", "--json", cwd=root).stdout)["settings"]["runtime"] == {
        "value": "auto",
        "origin": "default",
    }
    assert claw("run", "-g", "here", "--", "true", cwd=root).returncode == 2


def test_a_working_directory_that_is_gone_prevents_nothing(root: Path) -> None:
    script = 'mkdir gone; cd gone; rmdir ../gone; exec "$0" -m claw_core "$@"'
    for args, code in ((("run", "-r", "local", "--", "true"), 0), (("doctor",), 2)):
        done = subprocess.run(
            ["sh", "-c", script, sys.executable, *args], cwd=root, capture_output=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr


def test_trust_shows_the_difference_asks_and_accepts(root: Path) -> None:
    run = ("run", "--root", root, "-g", "here", "--", "sh", "-c", "echo $A")
    assert claw(*run).returncode == 0
    config = {"containerConfig": {"runtime": "local", "env": {"A": "x"}}}
    (root / "groups/here/config.json").write_text(json.dumps(config))
    trust = ("trust", "--root", root)
    nobody = claw(*trust, "here")
    assert nobody.returncode == 2
    assert b"variable A: added" in nobody.stdout
    unanswered = claw(*trust, "--json", "here")
    assert unanswered.returncode == 1
    shown = json.loads(unanswered.stdout)
    assert shown == {"group": "here", "pending": ["variable A: added"], "accepted": False}
    assert claw(*run).returncode == 2
    accepted = json.loads(claw(*trust, "--json", "--yes", "here").stdout)
    assert accepted["accepted"] is True
    assert claw(*run).stdout == b"x\n"
    assert b"asks for nothing that was not accepted" in claw(*trust, "here").stdout


@pytest.mark.parametrize("group", ["../here", "a/b", "new\nline", "", "nobody", "global"])
def test_a_group_that_cannot_be_is_exit_2_and_starts_nothing(root: Path, group: str) -> None:
    for command in (("run", "-g", group, "--", "true"), ("explain", group), ("trust", group)):
        if command == ("explain", ""):
            continue
        done = claw(command[0], "--root", root, *command[1:])
        assert done.returncode == 2, command
        assert b"group" in done.stderr
        assert done.stdout == b""


def test_problems_of_all_files_are_listed_and_nothing_is_started(root: Path, state: Path) -> None:
    (root / "claw.toml").write_text("timeout = 10\nfoo = 1\n")
    with (root / ".env").open("a") as file:
        file.write("no assignment\n")
    (root / "groups/here/config.json").write_text('{"containerConfig": {"timeout": "10m"}}')
    done = claw(
        *("run", "--root", root, "--config", root / "claw.toml", "-g", "here", "--", "touch", "x")
    )
    assert done.returncode == 2
    said = done.stderr.decode()
    for problem in (
        "4 problems in the configuration",
        "claw.toml: timeout: expected a duration",
        "claw.toml: foo: unknown key",
        ".env: line 2: expected NAME=value",
        'groups/here/config.json: containerConfig.timeout: expected milliseconds, got "10m"',
    ):
        assert problem in said
    assert not (root / "groups/here/x").exists()
    assert list((state / "instances").iterdir()) == []


def test_every_mount_that_is_not_granted_is_listed(root: Path) -> None:
    mounts = [{"hostPath": "/etc"}, {"hostPath": str(root / "nowhere")}]
    config = {"containerConfig": {"runtime": "local", "additionalMounts": mounts}}
    (root / "groups/here/config.json").write_text(json.dumps(config))
    done = claw("run", "--root", root, "-g", "here", "--", "true")
    assert done.returncode == 2
    said = done.stderr.decode()
    assert "additionalMounts[0]: '/etc' is outside of the allowed roots (none)" in said
    assert "additionalMounts[1]: cannot mount" in said


def test_a_writable_mount_over_the_configuration_is_refused(root: Path, state: Path) -> None:
    config = root / "conf"
    config.mkdir()
    (config / "claw.toml").touch()
    for source in (root, config, state, state.parent):
        done = claw(
            *("run", "--root", root, "--config", config / "claw.toml", "-r", "local"),
            *("--mount", f"{source}:/x:rw", "--", "true"),
        )
        assert done.returncode == 2, source
        assert b"a writable mount of" in done.stderr


def test_a_swap_between_check_and_use_never_shows_what_lies_outside(root: Path) -> None:
    """A mount whose source turns into a link to somewhere else, and back, all the time."""
    allowed, outside = root / "allowed", root / "outside"
    for folder in (allowed / "data", allowed / "other", outside):
        folder.mkdir(parents=True)
    (allowed / "data/file").write_text("inside")
    (outside / "file").write_text("canary")
    (root / "claw.toml").write_text(
        f'[mount_policy]\nallowed_roots = [{{ path = "{allowed}", writable = true }}]\n'
    )
    config = {"runtime": "local", "additionalMounts": [{"hostPath": str(allowed / "data")}]}
    (root / "groups/here/config.json").write_text(json.dumps({"containerConfig": config}))
    swapping = (
        "import os, sys\n"
        "allowed, outside = sys.argv[1:]\n"
        "data, aside, link = (f'{allowed}/{name}' for name in ('data', 'aside', 'link'))\n"
        "while True:\n"
        "    os.symlink(outside, link)\n"
        "    os.rename(data, aside); os.rename(link, data)\n"
        "    os.rename(data, link); os.rename(aside, data)\n"
        "    os.unlink(link)\n"
    )
    swapper = subprocess.Popen(["python3", "-c", swapping, str(allowed), str(outside)])
    try:
        for _ in range(12):
            done = claw(
                *("run", "-q", "--root", root, "--config", root / "claw.toml", "-g", "here"),
                *("--", "cat", "/workspace/extra/data/file"),
            )
            assert b"canary" not in done.stdout + done.stderr
            assert done.returncode in {0, 2, 125}, done.stderr
    finally:
        swapper.kill()
        swapper.wait()


def test_a_secret_is_in_nothing_that_claw_says(root: Path, state: Path) -> None:
    """The value stands in the environment, in a failing command line and in the events."""
    (root / "claw.toml").write_text('[groups.here]\nsecrets = ["KEY"]\n')
    env = {"KEY": "canary-5309"}
    done = claw(
        *("run", "-v", "--root", root, "--config", root / "claw.toml", "-g", "here"),
        *("--events", root / "events.jsonl", "-w", "/canary-5309", "--", "true"),
        env=env,
    )
    assert done.returncode == 125
    said = done.stderr.decode()
    assert "canary" not in said
    assert "[secret KEY]" in said
    for path in (root / "events.jsonl", state / "runs.jsonl"):
        assert "canary" not in path.read_text()


def test_a_secret_that_nobody_set_is_refused_with_its_place(root: Path) -> None:
    (root / "claw.toml").write_text('[groups.here]\nsecrets = ["NOT_SET", "NOR_THIS"]\n')
    done = claw(
        *("run", "--root", root, "--config", root / "claw.toml", "-g", "here", "--", "true")
    )
    assert done.returncode == 2
    for name in ("NOT_SET", "NOR_THIS"):
        assert f"claw.toml: groups.here.secrets.{name}: the secret {name} is set neither" in (
            done.stderr.decode()
        )


def test_events_are_written_as_json_lines(root: Path) -> None:
    log = root / "events.jsonl"
    for _ in range(2):
        assert claw("run", "-r", "local", "--events", log, "--", "true").returncode == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    ended = [line["phase"] for line in lines if line["event"] == "PhaseEnded"]
    assert ended == ["prepare", "start", "execute", "teardown"] * 2
    assert all(line["time"] > 1.7e9 for line in lines)
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("path", ["/", "/nowhere/events"])
def test_events_that_cannot_be_written_are_an_error_before_anything_runs(path: str) -> None:
    done = claw("run", "-r", "local", "--events", path, "--", "true")
    assert done.returncode == 2
    assert b"cannot write events" in done.stderr


def test_a_full_disk_loses_events_and_not_the_run() -> None:
    done = claw("run", "-r", "local", "--events", "/dev/full", "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (0, b"ran\n")
    assert b"not all events were written: No space left on device" in done.stderr


def test_explain_says_that_a_run_would_lack_its_secret(root: Path) -> None:
    (root / "claw.toml").write_text('[groups.here]\nsecrets = ["NOT_SET"]\n')
    found = json.loads(
        claw(*("explain", "--json", "--root", root, "--config", root / "claw.toml", "here")).stdout
    )
    assert found["runtime"] is None
    assert "the secret NOT_SET is set neither" in found["refusal"]


def test_explain_of_a_group_that_is_not_accepted_is_what_run_would_do(root: Path) -> None:
    assert claw("run", "--root", root, "-g", "here", "--", "true").returncode == 0
    config = {"containerConfig": {"runtime": "local", "image": "x"}}
    (root / "groups/here/config.json").write_text(json.dumps(config))
    found = explained(root, "here")
    assert found["runtime"] is None
    assert found["trust"]["pending"] == ["image: not set -> x"]
    shown = claw("explain", "--root", root, "here").stdout.decode()
    assert "nothing, before what its config.json asks for is accepted" in shown
