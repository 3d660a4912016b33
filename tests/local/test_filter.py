"""The system call filter, interpreted as the kernel does, for both architectures."""

from __future__ import annotations

import errno
import itertools

import pytest

from claw_core.local import kernel, seccomp
from claw_core.local.seccomp import ALLOW, KILL, Instruction, refuse
from claw_core.local.syscalls import ALLOWED, REFUSED

FAMILIES = (seccomp.AF_INET, seccomp.AF_INET6)
SUPERVISOR, FIRST = 4242, 4241
HIGH = 0xFFFFFFFF_00000000
O_CREAT, O_TMPFILE, O_TRUNC, O_WRONLY = 0o100, 0o20200000, 0o1000, 1


def simulate(code: list[Instruction], architecture: int, number: int, *args: int) -> int:
    """What the kernel would answer to a call; raises where it would reject the program."""
    words = [number, architecture, 0, 0]
    for argument in (*args, 0, 0, 0, 0, 0, 0)[:6]:
        words += [argument & 0xFFFFFFFF, argument >> 32 & 0xFFFFFFFF]
    accumulator = position = 0
    while True:
        operation, if_true, if_false, value = code[position]
        position += 1
        if operation == seccomp.LOAD:
            assert value % 4 == 0
            accumulator = words[value // 4]
        elif operation == seccomp.AND:
            accumulator &= value
        elif operation == seccomp.JUMP:
            position += value
        elif operation == seccomp.RETURN:
            return value
        else:
            met = {
                seccomp.JUMP_IF_EQUAL: accumulator == value,
                seccomp.JUMP_IF_AT_LEAST: accumulator >= value,
                seccomp.JUMP_IF_ANY_BIT: bool(accumulator & value),
            }[operation]
            position += if_true if met else if_false


RULES = {
    "own": seccomp.rules(FAMILIES),
    "shared": seccomp.rules_of_shared_system(FAMILIES, [SUPERVISOR, FIRST], truncation=True),
    "old": seccomp.rules_of_shared_system(FAMILIES, [SUPERVISOR, FIRST], truncation=False),
}
PROGRAMS = {
    (machine, kind): seccomp.program(machine, rules)
    for machine in kernel.MACHINES
    for kind, rules in RULES.items()
}


@pytest.fixture(params=list(PROGRAMS), ids="-".join)
def chosen(request: pytest.FixtureRequest) -> tuple[str, str]:
    machine, kind = request.param
    return machine, kind


def verdict(chosen: tuple[str, str], name: str, *args: int) -> int | None:
    """The answer to a call by name; None where the architecture has no such call."""
    machine, _ = chosen
    number = (ALLOWED.get(name) or REFUSED[name])[kernel.MACHINES.index(machine)]
    if number is None:
        return None
    return simulate(PROGRAMS[chosen], seccomp.AUDIT_ARCHITECTURES[machine], number, *args)


def test_every_number_gets_its_verdict(chosen: tuple[str, str]) -> None:
    machine, kind = chosen
    column = kernel.MACHINES.index(machine)
    architecture = seccomp.AUDIT_ARCHITECTURES[machine]
    allowed = {numbers[column]: name for name, numbers in ALLOWED.items()}
    refused = {numbers[column] for numbers in REFUSED.values()}
    assert not set(allowed) & refused - {None}
    for number in [*range(1024), 0x40000000, 0x40000000 + 59, 0x7FFFFFFF, 0xFFFFFFFF]:
        name = allowed.get(number)
        if name in RULES[kind]:
            continue
        expected = refuse() if number in refused else refuse(errno.ENOSYS)
        answer = simulate(PROGRAMS[chosen], architecture, number)
        assert answer == (ALLOW if name else expected), (number, name)


def test_another_architecture_kills(chosen: tuple[str, str]) -> None:
    others = {0x40000003, 0xC000003E, 0xC00000B7, 0x40000028, 0} - {
        seccomp.AUDIT_ARCHITECTURES[chosen[0]]
    }
    for architecture in others:
        assert simulate(PROGRAMS[chosen], architecture, 0) == KILL


def test_a_program_fits_into_what_the_kernel_takes(chosen: tuple[str, str]) -> None:
    assert len(PROGRAMS[chosen]) <= 4096
    for position, (operation, if_true, if_false, value) in enumerate(PROGRAMS[chosen]):
        reach = value if operation == seccomp.JUMP else max(if_true, if_false)
        assert operation == seccomp.RETURN or position + 1 + reach < len(PROGRAMS[chosen])


# The kernel reads modes, flags, pids and families as 32 bits or fewer, and so does the filter: what
# is in the high word changes nothing.
@pytest.mark.parametrize("high", [0, HIGH])
def test_set_id_bits_are_refused_wherever_a_mode_is_given(
    chosen: tuple[str, str], high: int
) -> None:
    for bits, good in itertools.product((0o4000, 0o2000, 0o6000), (0o755, 0o100755)):
        bad = good | bits | high
        for name in ("chmod", "fchmod", "creat", "mknod", "mkdir"):
            assert verdict(chosen, name, 0, bad) in {refuse(), None}
            assert verdict(chosen, name, 0, good | high) in {ALLOW, None}
        for name in ("fchmodat", "fchmodat2", "mknodat", "mkdirat"):
            assert verdict(chosen, name, 0, 0, bad) == refuse()
            assert verdict(chosen, name, 0, 0, good | high) == ALLOW
        for creating in (O_CREAT, O_CREAT | O_WRONLY, O_TMPFILE | O_WRONLY):
            assert verdict(chosen, "open", 0, creating | high, bad) in {refuse(), None}
            assert verdict(chosen, "openat", 0, 0, creating | high, bad) == refuse()
        assert verdict(chosen, "openat", 0, 0, O_WRONLY, bad) == ALLOW  # that is no mode


@pytest.mark.parametrize("high", [0, HIGH])
def test_no_namespace_can_be_made(chosen: tuple[str, str], high: int) -> None:
    for flag in (
        kernel.CLONE_NEWNS, kernel.CLONE_NEWCGROUP, kernel.CLONE_NEWUTS, kernel.CLONE_NEWIPC,
        kernel.CLONE_NEWUSER, kernel.CLONE_NEWPID, kernel.CLONE_NEWNET,
    ):  # fmt: skip
        assert verdict(chosen, "clone", high | flag | 17) == refuse()
    assert verdict(chosen, "clone", high | 17) == ALLOW
    assert verdict(chosen, "unshare", 0) == refuse()
    machine = seccomp.AUDIT_ARCHITECTURES[chosen[0]]
    assert simulate(PROGRAMS[chosen], machine, 435) == refuse(errno.ENOSYS)  # clone3
    assert simulate(PROGRAMS[chosen], machine, 437) == refuse(errno.ENOSYS)  # openat2


@pytest.mark.parametrize("high", [0, HIGH])
def test_nothing_is_typed_into_a_terminal(chosen: tuple[str, str], high: int) -> None:
    assert verdict(chosen, "ioctl", 0, high | 0x5412) == refuse()
    assert verdict(chosen, "ioctl", 0, high | 0x541C) == refuse()
    assert verdict(chosen, "ioctl", 0, 0x5401) == ALLOW


@pytest.mark.parametrize("high", [0, HIGH])
def test_only_the_chosen_sockets_are_made(chosen: tuple[str, str], high: int) -> None:
    for family in range(50):
        expected = ALLOW if family in FAMILIES else refuse(errno.EAFNOSUPPORT)
        assert verdict(chosen, "socket", high | family, 1) == expected


@pytest.mark.parametrize("high", [0, HIGH])
def test_what_holds_a_payload_is_not_signalled_on_a_shared_system(
    chosen: tuple[str, str], high: int
) -> None:
    if chosen[1] == "own":
        assert verdict(chosen, "kill", SUPERVISOR, 9) == ALLOW
        return
    for name in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        for pid in (SUPERVISOR, FIRST, -SUPERVISOR, -FIRST, -1):
            assert verdict(chosen, name, high | pid & 0xFFFFFFFF, 9) == refuse()
        assert verdict(chosen, name, 77, 9) == ALLOW
    assert verdict(chosen, "pidfd_open", 77) == refuse()
    assert verdict(chosen, "fcntl", 0, high | 8, SUPERVISOR) == refuse()
    assert verdict(chosen, "fcntl", 0, high | 15, SUPERVISOR) == refuse()
    assert verdict(chosen, "ioctl", 0, high | 0x8901) == refuse()
    assert verdict(chosen, "fcntl", 0, 3) == ALLOW


def test_ipc_of_a_shared_system_is_out_of_reach(chosen: tuple[str, str]) -> None:
    expected = ALLOW if chosen[1] == "own" else refuse()
    for name in ("shmget", "shmat", "semget", "msgget", "msgrcv", "mq_open"):
        assert verdict(chosen, name) == expected
    for kind, nonblocking in itertools.product((2, 3), (0, 0o4000, 0o2000000)):
        assert verdict(chosen, "socketpair", 1, kind | nonblocking) == expected
    assert verdict(chosen, "socketpair", 1, 1 | 0o4000) == ALLOW
    assert verdict(chosen, "socketpair", 1, 5) == ALLOW


def test_an_old_landlock_gets_help_against_truncation(chosen: tuple[str, str]) -> None:
    old = chosen[1] == "old"
    expected = refuse() if old else ALLOW
    assert verdict(chosen, "truncate", 0, 0) == expected
    for mode, answer in ((0, expected), (3, expected), (1, ALLOW), (2, ALLOW)):
        assert verdict(chosen, "openat", 0, 0, O_TRUNC | mode) == answer
        assert verdict(chosen, "open", 0, O_TRUNC | mode) in {answer, None}
    assert verdict(chosen, "openat", 0, 0, O_CREAT | O_TRUNC | 1, 0o4755) == refuse()
    assert verdict(chosen, "prlimit64", 77) == refuse()
    assert verdict(chosen, "prlimit64", 0) == ALLOW
    assert verdict(chosen, "personality", 0x400000) == refuse()
