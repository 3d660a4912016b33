"""The programs of an instance, in every kind of `sh` that images have."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from claw_core.guest import KILLER
from claw_runtime_apple.scripts import COMMAND, ENVIRONMENT, KEEPER, UPLOAD, assignments
from claw_runtime_apple.told import Scanner, Word

SHELLS = [["dash"], ["bash", "--posix"], ["busybox", "ash"]]
TOKEN = "0123456789abcdef"


@pytest.fixture(params=SHELLS, ids=lambda argv: argv[0])
def sh(request: pytest.FixtureRequest) -> list[str]:
    argv: list[str] = request.param
    if shutil.which(argv[0]) is None:
        pytest.skip(f"there is no {argv[0]} here")
    return argv


def start(
    sh: Sequence[str], *argv: str, piped: bool = False, **env: str
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*sh, "-c", COMMAND, "sh", TOKEN, "/", "1" if piped else "", *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], ENVIRONMENT: assignments(env)},
        start_new_session=True,
    )


def split(data: bytes) -> tuple[bytes, list[str]]:
    pieces = Scanner(TOKEN).feed(data)
    words = [piece.text for piece in pieces if isinstance(piece, Word)]
    return b"".join(piece for piece in pieces if isinstance(piece, bytes)), words


def test_a_command_and_what_is_said_about_it(sh: list[str]) -> None:
    value = 'it\'s "odd"\\n\n$HOME'
    with start(sh, "sh", "-c", 'printf %s "$ODD"; echo e >&2; exit 3', ODD=value) as process:
        out, err = process.communicate()
        assert split(out) == (value.encode(), ["3"])
        assert split(err) == (b"e\n", [str(process.pid), "3"])
        assert process.returncode == 3


@pytest.mark.parametrize(
    ("argv", "word"), [(["nope"], "missing"), (["/nope"], "missing"), (["/etc/passwd"], "denied")]
)
def test_what_cannot_be_started(sh: list[str], argv: list[str], word: str) -> None:
    with start(sh, *argv) as process:
        out, err = process.communicate()
        assert (split(out), split(err)) == ((b"", []), (b"", [word]))


def test_input_comes_in_pieces_and_each_is_told(sh: list[str]) -> None:
    data = os.urandom(5000)
    with start(sh, "sh", "-c", "cat; exit 5", piped=True) as process:
        out, err = process.communicate(b"4000\n%b1000\n%b" % (data[:4000], data[4000:]))
        assert split(out) == (data, ["5"])
        assert split(err)[1] == [str(process.pid), "taken", "taken", "5"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_the_group_reaches_the_command_only(
    sh: list[str], number: signal.Signals
) -> None:
    program = f"trap 'exit 9' {number.value}; echo up; read -r line; echo $line; sleep 60 & wait"
    with start(sh, "sh", "-c", program, piped=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        subprocess.run([*sh, "-c", f"kill -{number.value} -{process.pid}"], check=True)
        process.stdin.write(b"5\nword\n")  # it is still fed
        process.stdin.close()
        said = process.stdout.read()
        assert split(said)[1] == ["9"]
        process.wait(10)


def test_the_killer_ends_a_command_before_any_of_it_sees_the_end_of_another(
    sh: list[str], tmp_path: Path
) -> None:
    program = f"echo up; cat; echo seen > {tmp_path}/end"
    with start(sh, "sh", "-c", program, piped=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        argv = ["-c", KILLER, "sh", "1", "CLAW_COMMAND=nothing", str(process.pid), ""]
        subprocess.run([*sh, *argv], check=True, timeout=20)
        assert process.wait(10) == -signal.SIGKILL
    assert not (tmp_path / "end").exists()


def test_the_keeper_lives_as_long_as_its_input(sh: list[str], tmp_path: Path) -> None:
    place = tmp_path / "new/place"
    with subprocess.Popen(
        [*sh, "-c", KEEPER, "claw", TOKEN, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{TOKEN} {process.pid}\n".encode()
        assert place.stat().st_mode & 0o7777 == 0o1777
        process.communicate(b"lines\nare\ndropped")
        assert process.returncode is not None


def test_an_upload_is_unpacked_and_read_to_its_end(sh: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0o640)
    with tarfile.open(tmp_path / "archive.tar", "w") as archive:
        archive.add(tmp_path / "file", "file")
    data = (tmp_path / "archive.tar").read_bytes() + bytes(300_000)
    argv = ["-c", UPLOAD, "sh", f"{tmp_path}/into/this"]
    owner = f"{os.getuid()}:{os.getgid()}"
    subprocess.run([*sh, *argv, owner, "file"], input=data, check=True, timeout=20)
    assert (tmp_path / "into/this/file").stat().st_mode & 0o7777 == 0o640
    broken = subprocess.run([*sh, *argv, "", ""], input=b"x" * 1024, check=False, timeout=20)
    assert broken.returncode != 0
