"""What runs a machine, as the system's list of processes says."""

from __future__ import annotations

import os
import sys

import pytest

from claw_core.errors import RuntimeFault
from claw_runtime_tart import processes
from runtime_tart.support import run

NAME = "claw-0ddba11e-0123456789ab"


def test_machines_are_found_among_megabytes_of_other_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = (
        f"print('1 x ' + 'y' * 3_000_000); print('  42 python3 /opt/tart run {NAME} -x');"
        f"print('43 /bin/tart run {NAME}-image'); print('44 tart run {NAME}0');"
        f"print('45 tart stop {NAME}'); print('46 /x/tart run {NAME}', end='\\n')"
    )
    monkeypatch.setattr(processes, "_LIST", (sys.executable, "-c", program))
    assert run(processes.of(NAME)) == [42, 46]
    assert run(processes.names()) == {NAME, f"{NAME}-image"}


def test_a_list_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_TIMEOUT", 0.1)
    for program in ("import time; time.sleep(60)", "raise SystemExit(1)"):
        monkeypatch.setattr(processes, "_LIST", (sys.executable, "-c", program))
        with pytest.raises(RuntimeFault, match="ps gives no list"):
            run(processes.names())


def test_who_cannot_be_told_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the system 0 and -1 mean a group, or everybody."""
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(pid))
    processes.kill([0, -1, 42])
    assert killed == [42]


@pytest.mark.parametrize(
    ("line", "runs", "waits"),
    [
        (f"  1 /opt/homebrew/bin/tart run {NAME} --no-graphics", True, False),
        (f" 22 python3 -I -S supervisor.py 5 7  /x/tart run {NAME} --dir=a:/b", True, False),
        (f"333 /bin/sh /x/fake_tart run {NAME}", True, False),
        (f"  4 python -IS /x/tart ip {NAME} --wait 15 --resolver dhcp", False, True),
        (f"  5 /x/tart exec -i {NAME} /bin/sh -c true", False, True),
        (f"  6 /x/tart exec {NAME} true", False, True),
        (f"  7 /home/runtime-tart/bin/claw exec {NAME} -- tart", False, False),
        (f"  8 claw reap {NAME}", False, False),
        (f"  9 /x/tart delete {NAME}", False, False),
        ("  10 /x/tart run mine", False, False),
        (f" 11 /x/tart run {NAME}0", False, False),
    ],
)
def test_a_process_is_known_by_its_arguments(line: str, runs: bool, waits: bool) -> None:
    for pattern, expected in ((processes._RUN, runs), (processes._WAIT, waits)):
        match = pattern.search(line.encode())
        assert (match is not None and match[2].decode() == NAME) == expected
