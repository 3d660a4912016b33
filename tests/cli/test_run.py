"""`claw run` as a user meets it: streams, exit codes, files, environment, limits, bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.support import CLAW, claw, entries, eventually, start


def test_the_output_and_exit_code_are_the_commands_own() -> None:
    done = claw("run", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_nothing_is_left_in_the_ledger(state: Path) -> None:
    assert claw("run", "--", "true").returncode == 0
    assert entries(state) == []


@pytest.mark.parametrize("first", range(0, 256, 64))
def test_every_exit_code_passes_through(first: int) -> None:
    script = "for i in range({0}, {1}): print(subprocess.call(['sh', '-c', f'exit {{i}}']))"
    script = "import subprocess\n" + script.format(first, first + 64)
    done = claw("run", "--", "python3", "-c", script)
    assert done.stdout.split() == [str(code).encode() for code in range(first, first + 64)]
    for code in (first, first + 1, first + 63):
        assert claw("run", "--", "sh", "-c", f"exit {code}").returncode == code


@pytest.mark.parametrize("number", [1, 2, 3, 6, 9, 11, 15])
def test_a_signal_is_128_plus_its_number(number: int) -> None:
    assert claw("run", "--", "sh", "-c", f"kill -{number} $$").returncode == 128 + number


def test_a_command_that_is_not_there_is_127_and_named() -> None:
    done = claw("run", "--", "no-such-command")
    assert done.returncode == 127
    assert b"no-such-command" in done.stderr


def test_a_file_that_cannot_be_executed_is_126(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a program")
    done = claw("run", "--mount", f"{tmp_path}:/mnt", "--", "/mnt/data")
    assert done.returncode == 126
    assert b"/mnt/data" in done.stderr


def test_the_deadline_is_124() -> None:
    done = claw("run", "--timeout", "0.3s", "--", "sleep", "60")
    assert done.returncode == 124
    assert b"timeout of 0.3 s" in done.stderr


def test_silence_is_124_but_output_pushes_the_idle_deadline_out() -> None:
    done = claw("run", "--idle-timeout", "1s", "--", "sleep", "60")
    assert done.returncode == 124
    assert b"idle timeout of 1 s" in done.stderr
    script = "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.2; done"
    assert claw("run", "--idle-timeout", "1s", "--", "sh", "-c", script).returncode == 0


def test_stdin_is_byte_exact() -> None:
    data = bytes(range(256)) * 4096 + b"\0\xff\xfe\r\n"
    assert claw("run", "--", "cat", stdin=data).stdout == data


def test_a_command_that_does_not_read_its_stdin_ends_all_the_same() -> None:
    assert claw("run", "--", "true", stdin=b"x" * (8 << 20)).returncode == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_the_caller_has_closed_are_empty(closed: str, state: Path) -> None:
    program = ("sh", "-c", "cat; echo out; echo err >&2; exit 4")
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *CLAW, "run", "-q", "--", *program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    out = b"" if ">" in closed.replace("2>", "") else b"out\n"
    err = b"" if "2>" in closed else b"err\n"
    assert (done.returncode, done.stdout, done.stderr) == (4, out, err)
    assert entries(state) == []


def test_dev_stdout_can_be_opened() -> None:
    done = claw("run", "--", "sh", "-c", "echo hello > /dev/stdout")
    assert (done.returncode, done.stdout) == (0, b"hello\n")


def test_a_gigabyte_passes_with_little_memory() -> None:
    script = "import os\nfor _ in range(4096): os.write(1, bytes(262144))"
    with subprocess.Popen(
        [*CLAW, "run", "--", "python3", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        count, peaks = 0, []
        while chunk := process.stdout.read(1 << 20):
            count += len(chunk)
            if len(chunk) == 1 << 20 and count % (64 << 20) == 0:
                peaks.append(_resident(process.pid))
    assert process.returncode == 0
    assert count == 1 << 30
    assert max(peaks) - peaks[0] < 64 << 20


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def test_a_slow_reader_slows_the_writer_and_loses_nothing(tmp_path: Path) -> None:
    script = (
        "import os\n"
        "for i in range(512):\n"
        "    os.write(1, bytes([i % 256]) * 65536)\n"
        "    open('/progress/count', 'w').write(str(i))\n"
    )
    with start("run", "--mount", f"{tmp_path}:/progress:rw", "--", "python3", "-c", script) as one:
        assert one.stdout is not None
        assert eventually(lambda: (tmp_path / "count").exists())
        before = -1

        def stalled() -> bool:
            nonlocal before
            time.sleep(0.3)
            now = int((tmp_path / "count").read_text() or 0)
            same, before = now == before, now
            return same

        assert eventually(stalled)
        assert before < 300  # 512 blocks of 64 KiB do not fit anywhere: the writer waits
        data = one.stdout.read()
    assert data == b"".join(bytes([i % 256]) * 65536 for i in range(512))


def test_a_reader_that_leaves_ends_the_run(state: Path) -> None:
    with start("run", "--", "yes") as one:
        assert one.stdout is not None
        assert one.stdout.read(4) == b"y\ny\n"
        one.stdout.close()
        assert one.wait(20) == 128 + 13
    assert entries(state) == []


def test_five_thousand_files_go_in_and_come_back(tmp_path: Path) -> None:
    source = tmp_path / "many"
    for directory in range(50):
        (source / f"d{directory}").mkdir(parents=True)
        for number in range(100):
            (source / f"d{directory}" / f"f{number}").write_text(f"{directory}/{number}")
    done = claw(
        *("run", "--upload", f"{source}:/tmp/many", "--download", f"/tmp/many:{tmp_path}/back"),
        *("--", "sh", "-c", "find /tmp/many -type f | wc -l"),
    )
    assert (done.returncode, done.stdout.strip()) == (0, b"5000")
    for directory in range(50):
        for number in range(100):
            path = Path(f"d{directory}") / f"f{number}"
            assert (tmp_path / "back" / path).read_text() == (source / path).read_text()


def test_files_with_odd_names_survive_the_round_trip(tmp_path: Path) -> None:
    source = tmp_path / "odd"
    source.mkdir()
    names = [b"new\nline", b"space ", b"\xff\xfe", "ümlaut".encode(), b"-rf", b"back\\slash"]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(source), name))).write_bytes(name)
    done = claw(
        "run", "--upload", f"{source}:/tmp/odd", "--download", f"/tmp/odd:{tmp_path}/back", "true"
    )
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(os.fsencode(tmp_path / "back"))) == sorted(names)


def test_mounts_are_read_only_unless_asked_otherwise(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    done = claw("run", "--mount", f"{tmp_path}:/m", "--", "sh", "-c", "cat /m/kept; touch /m/new")
    assert done.stdout == b"kept"
    assert done.returncode != 0
    assert b"Read-only" in done.stderr
    done = claw("run", "--mount", f"{tmp_path}:/m:rw", "--", "sh", "-c", "echo new > /m/new")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new").read_text() == "new\n"


def test_the_working_directory_is_seen_read_only(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("here")
    done = claw("run", "--", "sh", "-c", "pwd; cat here; touch new", cwd=tmp_path)
    assert done.stdout == b"/workspace\nhere"
    assert done.returncode != 0


def test_home_and_the_root_are_never_mounted_by_themselves(tmp_path: Path) -> None:
    (tmp_path / "private").write_text("private")
    for here, env in ((tmp_path, {"HOME": str(tmp_path)}), (Path("/"), {})):
        done = claw("run", "--", "ls", "-A", "/workspace", cwd=here, env=env)
        assert (done.returncode, done.stdout) == (0, b"")


def test_variables_and_secrets_reach_the_command() -> None:
    done = claw(
        *("run", "-e", "A=1", "-e", "INHERITED", "--secret", "KEY"),
        *("--", "sh", "-c", "echo $A $INHERITED $KEY $OTHER"),
        env={"INHERITED": "2", "KEY": "canary", "OTHER": "leaked"},
    )
    assert done.stdout == b"1 2 canary\n"


def test_a_secret_is_in_no_argument_ledger_or_log(state: Path) -> None:
    canary = "canary-5f1d2c"
    with start(
        "run",
        "--secret",
        "KEY",
        "--",
        "sh",
        "-c",
        "echo ready; sleep 60",
        env={**os.environ, "KEY": canary},
    ) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
        arguments = [
            path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()
        ]
        assert not any(canary.encode() in argument for argument in arguments)
        one.terminate()
        one.wait(20)
        assert one.stderr is not None
        assert canary.encode() not in one.stderr.read()
    for path in state.rglob("*"):
        assert path.is_dir() or canary.encode() not in path.read_bytes()


def test_an_empty_and_a_huge_environment_work() -> None:
    bare = subprocess.run(
        [*CLAW, "run", "--", "sh", "-c", "echo $HOME"],
        env={"CLAW_STATE": os.environ["CLAW_STATE"]},
        capture_output=True,
        check=False,
    )
    assert (bare.returncode, bare.stdout) == (0, b"/home/agent\n"), bare.stderr
    value = "v" * 100_000
    done = claw("run", "-e", "BIG", "--", "sh", "-c", "echo ${#BIG}", env={"BIG": value})
    assert done.stdout == b"100000\n", done.stderr


def test_an_environment_that_the_kernel_refuses_is_named() -> None:
    script = (
        "import claw_core; claw_core.run(['true'], env={f'V{n}': 'v' * 120000 for n in range(120)})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode != 0
    assert b"environment" in done.stderr


def test_json_is_one_document_with_streams_and_outcome() -> None:
    done = claw("run", "--json", "--", "sh", "-c", "echo out; printf '\\377' >&2; exit 3")
    shown = json.loads(done.stdout)
    assert done.returncode == 3
    assert shown["exit"] == 3
    assert shown["stdout"] == "out\n"
    assert shown["stderr_base64"] == "/w=="
    assert shown["teardown"] == "gone"
    assert shown["runtime"] == "local"
    assert shown["isolation"] in {"sandbox", "guard"}
    assert set(shown["axes"]) == {"fs", "net", "pid", "kill", "limits"}


def test_every_finished_run_is_a_line_without_content(state: Path) -> None:
    claw("run", "--", "echo", "some content")
    claw("run", "--", "false")
    lines = [json.loads(line) for line in (state / "runs.jsonl").read_text().splitlines()]
    assert [line["exit"] for line in lines] == [0, 1]
    assert all(line["teardown"] == "gone" for line in lines)
    assert all(
        {"prepare", "start", "execute", "teardown"} <= set(line["seconds"]) for line in lines
    )
    assert "content" not in (state / "runs.jsonl").read_text()


def test_verbose_says_the_phases_and_quiet_nothing() -> None:
    assert b"prepare" in claw("run", "-v", "--", "true").stderr
    assert claw("run", "-q", "--", "true").stderr == b""


def test_a_network_connection_fails_with_network_none() -> None:
    script = (
        "import socket\n"
        "try: socket.create_connection(('127.0.0.1', {port}), 2); print('connected')\n"
        "except OSError: print('refused')\n"
    )
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        program = script.format(port=server.getsockname()[1])
        done = claw("run", "--network", "none", "--", "python3", "-c", program)
        assert done.stdout == b"refused\n"
        done = claw("run", "--network", "default", "--", "python3", "-c", program)
        assert done.stdout == b"connected\n"


def test_more_memory_than_allowed_is_refused_to_the_command() -> None:
    done = claw(
        "run", "--memory", "200m", "--", "python3", "-c", "print(len(bytearray(800 << 20)))"
    )
    assert done.returncode != 0
    assert done.stdout == b""


def test_more_processes_than_allowed_are_refused_to_the_command() -> None:
    script = (
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    while made < 200:\n"
        "        if os.fork() == 0: time.sleep(60); os._exit(0)\n"
        "        made += 1\n"
        "except OSError: pass\n"
        "print(made)\n"
    )
    done = claw("run", "--processes", "30", "--", "python3", "-c", script)
    assert 5 <= int(done.stdout) <= 30


BAD = {
    "unknown runtime": (["run", "-r", "nope", "--", "true"], "nope"),
    "missing upload": (["run", "--upload", "/no/such:/tmp/x", "--", "true"], "/no/such"),
    "missing mount": (["run", "--mount", "/no/such:/x", "--", "true"], "/no/such"),
    "dots in a target": (["run", "--mount", "/usr:/x/../y", "--", "true"], "/x/../y"),
    "relative target": (["run", "--mount", "/usr:x", "--", "true"], "'x'"),
    "download without a place": (
        ["run", "--download", "/tmp/x:/no/such/dir/x", "--", "true"],
        "/no/such",
    ),
    "unset variable": (["run", "-e", "NOT_SET_ANYWHERE", "--", "true"], "NOT_SET_ANYWHERE"),
    "unset secret": (["run", "--secret", "NOT_SET_ANYWHERE", "--", "true"], "NOT_SET_ANYWHERE"),
    "secret with a value": (["run", "--secret", "KEY=value", "--", "true"], "assignment"),
    "odd duration": (["run", "--timeout", "soon", "--", "true"], "soon"),
    "odd size": (["run", "--memory", "lots", "--", "true"], "lots"),
    "no command": (["run"], "COMMAND"),
    "unknown option": (["run", "--nope", "--", "true"], "--nope"),
    "mount without a target": (["run", "--mount", "/usr", "--", "true"], "SRC:DST"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_and_starts_nothing(name: str, state: Path) -> None:
    args, named = BAD[name]
    done = claw(*args)
    assert done.returncode == 2, done.stderr
    assert named in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert entries(state) == []


def test_a_missing_workdir_is_named() -> None:
    done = claw("run", "-w", "/no/such", "--", "true")
    assert done.returncode == 125
    assert b"/no/such" in done.stderr


def test_a_download_of_nothing_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    done = claw("run", "--download", f"/tmp/nothing:{tmp_path}/x", "--", "true")
    assert done.returncode == 125
    assert b"/tmp/nothing" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_refuses_the_run_and_leaves_nothing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs takes root")
    small = tmp_path / "small"
    small.mkdir(mode=0o700)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "none", str(small)], check=True
    )
    try:
        assert claw("run", "--", "true", env={"CLAW_STATE": str(small)}).returncode == 0
        with (small / "filler").open("wb", buffering=0) as filler:
            try:
                while filler.write(b"x" * 4096):
                    pass
            except OSError:
                pass
        done = claw("run", "--", "true", env={"CLAW_STATE": str(small)})
        assert done.returncode == 125
        assert b"No space left" in done.stderr
        assert entries(small) == []
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_state_directory_of_someone_else_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a directory away takes root")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    os.chown(foreign, 1000, 1000)
    done = claw("run", "--", "true", env={"CLAW_STATE": str(foreign)})
    assert done.returncode == 125
    assert str(foreign) in done.stderr.decode()
