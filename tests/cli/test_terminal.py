"""`claw run -t` and `claw shell`, in a real terminal."""

from __future__ import annotations

import signal
import uuid
from pathlib import Path

import pytest

from cli.console import Console
from cli.support import claw, entries, eventually, marked

READY = ("sh", "-c", "echo ready; exec sleep 600")


def test_the_command_has_a_terminal_of_the_same_size() -> None:
    with Console("run", "-qt", "--", "sh", "-c", "tty; stty size; echo $TERM") as console:
        assert console.ends() == 0
        assert bytes(console.said) == b"/dev/pts/0\r\n33 101\r\ndumb\r\n"
        assert console.attributes() == console.before


def test_a_type_of_terminal_that_was_chosen_stays() -> None:
    with Console("run", "-qt", "-e", "TERM=vt220", "--", "printenv", "TERM") as console:
        assert console.ends() == 0
        assert bytes(console.said) == b"vt220\r\n"


def test_without_the_option_there_is_no_terminal() -> None:
    with Console("run", "-q", "--", "sh", "-c", "tty; tty <&1; printenv TERM") as console:
        assert console.ends() == 1
        assert bytes(console.said) == b"not a tty\r\nnot a tty\r\n"


def test_a_new_size_reaches_the_command() -> None:
    script = "trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.05; done"
    with Console("run", "-qt", "--", "sh", "-c", script) as console:
        console.sees(b"ready")
        console.resize(7, 9)
        assert console.ends() == 3
        assert bytes(console.said) == b"ready\r\n7 9\r\n"


def test_control_c_interrupts_the_command_and_not_claw() -> None:
    script = "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.05; done"
    with Console("run", "-qt", "--", "sh", "-c", script) as console:
        console.sees(b"ready")
        console.press(b"\x03")
        assert console.ends() == 7
        assert bytes(console.said) == b"ready\r\n^Ccaught\r\n"


def test_control_d_ends_a_file() -> None:
    with Console("run", "-qt", "--", "sh", "-c", "echo ready; cat; echo end=$?") as console:
        console.sees(b"ready")
        console.press(b"hello\r")
        console.sees(b"hello", 2)
        console.press(b"\x04")
        assert console.ends() == 0
        assert bytes(console.said) == b"ready\r\nhello\r\nhello\r\nend=0\r\n"


def test_keys_pass_untouched_while_the_command_has_the_terminal() -> None:
    script = "stty raw -echo; echo ready; head -c 6 | od -An -tx1"
    with Console("run", "-qt", "--", "sh", "-c", script) as console:
        console.sees(b"ready")
        console.press(b"\x03\x1a\x1c\x13\r\x7f")
        assert console.ends() == 0
        assert b"03 1a 1c 13 0d 7f" in console.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("times", [1, 3])
def test_the_terminal_is_restored_after_signals(number: int, times: int, state: Path) -> None:
    with Console("run", "-qt", "--", *READY) as console:
        console.sees(b"ready")
        assert console.attributes() != console.before
        for _ in range(times):
            console.process.send_signal(number)
        assert console.ends() == 128 + number
        assert console.attributes() == console.before
    assert eventually(lambda: entries(state) == [], 20)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--timeout", "0.5", "--", *READY), 124, b"timeout of 0.5 s"),
        (("--", "no-such-program"), 127, b"no-such-program: command not found"),
        (("-w", "/no/such/place", "--", "true"), 125, b"cannot start in '/no/such/place'"),
        (("--", "sh", "-c", "kill -9 $$"), 137, b""),
    ],
)
def test_the_terminal_is_restored_after_a_failure(
    options: tuple[str, ...], code: int, message: bytes
) -> None:
    with Console("run", "-qt", *options) as console:
        assert console.ends() == code
        assert console.attributes() == console.before
        assert message in console.said


def test_claw_is_silent_while_the_command_has_the_terminal() -> None:
    with Console("run", "-t", "-v", "--", "true") as console:
        assert console.ends() == 0
        assert b"claw: local: start done" in console.said
        assert b"execute" not in console.said
        assert b"claw: local: teardown done" in console.said


def test_killing_claw_leaves_no_process(state: Path) -> None:
    marker = f"terminal-{uuid.uuid4().hex}"
    script = f"# {marker}\ntrap '' HUP INT TERM; echo ready; while :; do sleep 1; done"
    with Console("run", "-qt", "--", "sh", "-c", script) as console:
        console.sees(b"ready")
        console.process.kill()
        assert console.ends() == -signal.SIGKILL
        assert eventually(lambda: not marked(marker)), marked(marker)
    assert claw("ps").returncode == 0
    assert eventually(lambda: entries(state) == [], 20)


def test_without_a_terminal_or_with_json_it_is_refused(state: Path) -> None:
    done = claw("run", "-t", "--", "true")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"standard input is not a terminal" in done.stderr
    assert b"leave `-t` out" in done.stderr
    done = claw("run", "-t", "--json", "--", "true")
    assert done.returncode == 2
    assert b"leave `-t` or `--json` out" in done.stderr
    assert claw("shell").returncode == 2
    assert entries(state) == []


def test_a_shell_is_interactive_and_its_code_is_the_code(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("shown inside\n")
    options = ("--mount", f"{tmp_path}:/mnt/here", "-e", "A=b c")
    with Console("shell", *options) as console:
        console.sees(b"$ ")
        console.press(b"PS1='@'' '\r")
        console.sees(b"@ ")
        console.press(b"cat /mnt/here/file; echo $A; echo $0 $-; echo $PATH\r")
        console.sees(b"@ ", 2)
        console.press(b"sh -c 'echo be\"\"gun; exec sleep 600'\r")
        console.sees(b"begun")
        console.press(b"\x03")
        console.sees(b"@ ", 3)
        console.press(b"exit 9\r")
        assert console.ends() == 9
        assert b"shown inside\r\nb c\r\nbash " in console.said
        assert console.attributes() == console.before


def test_a_shell_takes_the_options_of_a_run() -> None:
    said = claw("shell", "--help").stdout
    for option in (b"--mount", b"--memory", b"--network", b"--timeout", b"--secret"):
        assert option in said
    assert b"--json" not in said
    assert claw("shell", "--", "true").returncode == 2
