"""Which processes are those of a machine, by their command lines."""

from __future__ import annotations

import pytest

from claw_runtime_tart import processes

NAME = "claw-85d6a1af-e77635be7e73"


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
        match = pattern.match(line)
        assert (match is not None and match[2] == NAME) == expected
