"""The filter means what it says: its program is run here, instruction by instruction."""

from __future__ import annotations

import errno
import platform
import re
import subprocess
from pathlib import Path

import pytest

from claw_core.local import kernel, seccomp
from claw_core.local.seccomp import ALLOW, AUDIT_ARCHITECTURES, KILL, refuse
from claw_core.local.syscalls import ALLOWED, REFUSED

INSIDE = (seccomp.AF_UNIX, seccomp.AF_INET, seccomp.AF_INET6, seccomp.AF_NETLINK)
NO_SUCH_CALL = refuse(errno.ENOSYS)
NO_FAMILY = refuse(errno.EAFNOSUPPORT)


def simulate(program: list[seccomp.Instruction], arch: int, number: int, *args: int) -> int:
    """Answer as the kernel would; only what its verifier accepts is understood."""
    words = {0: number, 4: arch}
    for index in range(6):
        value = (args[index] if index < len(args) else 0) & 0xFFFFFFFFFFFFFFFF
        words[16 + 8 * index] = value & 0xFFFFFFFF
        words[20 + 8 * index] = value >> 32
    accumulator = at = 0
    while True:
        code, yes, no, constant = program[at]
        at += 1
        if code == seccomp.LOAD:
            accumulator = words[constant]
        elif code == seccomp.AND:
            accumulator &= constant
        elif code == seccomp.JUMP:
            at += constant
        elif code == seccomp.RETURN:
            return constant
        else:
            holds = {
                seccomp.JUMP_IF_EQUAL: accumulator == constant,
                seccomp.JUMP_IF_AT_LEAST: accumulator >= constant,
                seccomp.JUMP_IF_ANY_BIT: bool(accumulator & constant),
            }[code]
            at += yes if holds else no


class Filter:
    def __init__(self, machine: str, families: tuple[int, ...], protected: tuple[int, ...]) -> None:
        self.machine = machine
        rules = seccomp.rules(families)
        if protected:
            rules = seccomp.rules_of_shared_system(families, protected, truncation=True)
        self.program = seccomp.program(machine, rules)

    def number(self, name: str) -> int | None:
        return {**ALLOWED, **REFUSED}[name][kernel.MACHINES.index(self.machine)]

    def answer(self, name: str, *args: int) -> int | None:
        """The verdict on a call, or None where the architecture has no such call."""
        number = self.number(name)
        if number is None:
            return None
        return simulate(self.program, AUDIT_ARCHITECTURES[self.machine], number, *args)


@pytest.fixture(params=kernel.MACHINES)
def inside(request: pytest.FixtureRequest) -> Filter:
    return Filter(request.param, INSIDE, ())


@pytest.fixture(params=kernel.MACHINES)
def guard(request: pytest.FixtureRequest) -> Filter:
    return Filter(request.param, (), (4242, 4343))


def test_every_number_gets_the_verdict_of_its_name(inside: Filter) -> None:
    column = kernel.MACHINES.index(inside.machine)
    decided_by_arguments = set(seccomp.rules(INSIDE))
    names = {numbers[column]: name for name, numbers in {**ALLOWED, **REFUSED}.items()}
    arch = AUDIT_ARCHITECTURES[inside.machine]
    for number in [*range(700), 0x7FFFFFFF, 0xFFFFFFFF]:
        name = names.get(number)
        if name in decided_by_arguments:
            continue
        expected = NO_SUCH_CALL if name is None else ALLOW if name in ALLOWED else refuse()
        assert simulate(inside.program, arch, number) == expected, (number, name)


def test_no_call_is_in_both_tables_and_no_number_has_two_names() -> None:
    assert not set(ALLOWED) & set(REFUSED)
    for column in range(2):
        pairs = (*ALLOWED.values(), *REFUSED.values())
        numbers = [pair[column] for pair in pairs if pair[column] is not None]
        assert len(numbers) == len(set(numbers))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="compares with this machine's headers")
def test_numbers_are_those_of_the_headers() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("no kernel headers")
    known = {
        name: int(number)
        for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)", header.read_text())
    }
    for name, (number, _) in {**ALLOWED, **REFUSED}.items():
        if number is not None and name in known:
            assert known[name] == number, name


def test_numbers_of_aarch64_are_those_of_the_generic_header() -> None:
    header = Path("/usr/include/asm-generic/unistd.h")
    if not header.exists():
        pytest.skip("no kernel headers")
    text = subprocess.run(
        ["cpp", "-dM", "-D__BITS_PER_LONG=64", "-D__ARCH_WANT_RENAMEAT",
         "-D__ARCH_WANT_SET_GET_RLIMIT", "-D__ARCH_WANT_NEW_STAT", "-D__ARCH_WANT_MEMFD_SECRET"],
        input=header.read_text(), capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    defined = dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\S+)", text))
    for name, (_, number) in {**ALLOWED, **REFUSED}.items():
        value = defined.get({"newfstatat": "fstatat"}.get(name, name), "")
        if number is not None and value.isdigit():
            assert int(value) == number, name


def test_another_architecture_ends_the_process(inside: Filter) -> None:
    for arch in (0x40000003, 0x40000028, *AUDIT_ARCHITECTURES.values()):
        if arch != AUDIT_ARCHITECTURES[inside.machine]:
            assert simulate(inside.program, arch, 0) == KILL


def test_calls_of_the_x32_interface_do_not_exist(inside: Filter) -> None:
    arch = AUDIT_ARCHITECTURES[inside.machine]
    for number in (0, 1, 39, 59, 322, 512, 520, 547):
        assert simulate(inside.program, arch, 0x40000000 | number) == NO_SUCH_CALL


def test_what_could_leave_the_sandbox_is_refused_by_name(inside: Filter) -> None:
    for name in (
        "mount", "umount2", "pivot_root", "chroot", "setns", "unshare", "move_mount", "open_tree",
        "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "ptrace", "process_vm_readv",
        "process_vm_writev", "kcmp", "pidfd_getfd", "bpf", "perf_event_open", "userfaultfd",
        "keyctl", "add_key", "request_key", "io_uring_setup", "io_uring_enter",
        "io_uring_register", "init_module", "finit_module", "delete_module", "kexec_load",
        "kexec_file_load", "open_by_handle_at", "name_to_handle_at", "swapon", "reboot", "acct",
        "settimeofday", "clock_settime", "sethostname", "quotactl", "syslog",
    ):  # fmt: skip
        assert inside.answer(name) == refuse(), name


def test_clone3_and_openat2_do_not_exist_because_their_arguments_cannot_be_seen(
    inside: Filter,
) -> None:
    arch = AUDIT_ARCHITECTURES[inside.machine]
    assert simulate(inside.program, arch, 435) == NO_SUCH_CALL
    assert simulate(inside.program, arch, 437) == NO_SUCH_CALL


def test_clone_makes_threads_and_processes_but_no_namespaces(inside: Filter) -> None:
    assert inside.answer("clone", 17) == ALLOW
    assert inside.answer("clone", 0x3D0F00) == ALLOW
    for bit in (0x20000, 1 << 25, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30):
        assert inside.answer("clone", bit | 17) == refuse(), hex(bit)


def test_nothing_can_be_typed_into_a_terminal(inside: Filter) -> None:
    assert inside.answer("ioctl", 0, 0x5401) == ALLOW
    for request in (0x5412, 0x541C, 0x5412 | 1 << 32):
        assert inside.answer("ioctl", 0, request) == refuse()


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6777])
def test_set_id_bits_cannot_be_given_to_files(inside: Filter, mode: int) -> None:
    create, temporary = 0o100, 0o20000000
    for name, before in (
        ("chmod", (0,)), ("fchmod", (0,)), ("creat", (0,)), ("mknod", (0,)), ("mkdir", (0,)),
        ("fchmodat", (0, 0)), ("fchmodat2", (0, 0)), ("mknodat", (0, 0)), ("mkdirat", (0, 0)),
        ("open", (0, create)), ("openat", (0, 0, create)), ("openat", (0, 0, temporary)),
    ):  # fmt: skip
        assert inside.answer(name, *before, mode) in {refuse(), None}, name
        assert inside.answer(name, *before, 0o755) in {ALLOW, None}, name
    assert inside.answer("openat", 0, 0, 0, mode) == ALLOW  # creates nothing: the mode is garbage


def test_sockets_have_only_the_families_of_their_engine(inside: Filter, guard: Filter) -> None:
    for family in (1, 2, 10, 16):
        assert inside.answer("socket", family, 1, 0) == ALLOW
    for family in (0, 3, 9, 15, 17, 31, 38, 40, 44):
        assert inside.answer("socket", family, 1, 0) == NO_FAMILY
    for family in range(46):
        assert guard.answer("socket", family, 1, 0) == NO_FAMILY


def test_without_named_sockets_a_pair_cannot_send_to_one_either(
    inside: Filter, guard: Filter
) -> None:
    cloexec = 0o2000000
    for kind in (1, 5, 1 | cloexec):
        assert guard.answer("socketpair", 1, kind, 0) == ALLOW
    for kind in (2, 3, 2 | cloexec):
        assert guard.answer("socketpair", 1, kind, 0) == refuse()
        assert inside.answer("socketpair", 1, kind, 0) == ALLOW


def test_guard_protects_what_holds_the_instance_together(guard: Filter) -> None:
    for name in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        for pid in (4242, 4343, -4242, -4343, -1):
            assert guard.answer(name, pid & 0xFFFFFFFFFFFFFFFF, 9) == refuse()
            assert guard.answer(name, pid & 0xFFFFFFFF, 9) == refuse()
        assert guard.answer(name, 4244, 9) == ALLOW
    assert guard.answer("pidfd_open", 4242) == refuse()
    for command in (8, 10, 15):
        assert guard.answer("fcntl", 0, command) == refuse()
    assert guard.answer("fcntl", 0, 3) == ALLOW
    assert guard.answer("ioctl", 0, 0x8901) == refuse()
    assert guard.answer("ioctl", 0, 0x5412) == refuse()


def test_limits_of_other_processes_cannot_be_set(inside: Filter) -> None:
    assert inside.answer("prlimit64", 0, 7) == ALLOW
    assert inside.answer("prlimit64", 17, 7) == refuse()


def test_every_jump_stays_inside_and_the_kernel_would_load_it(inside: Filter) -> None:
    length = len(inside.program)
    assert length <= 4096
    for at, (code, yes, no, constant) in enumerate(inside.program):
        assert 0 <= constant <= 0xFFFFFFFF
        assert max(yes, no) <= 255
        if code == seccomp.JUMP:
            assert at + 1 + constant < length
        elif code & 7 == 5:
            assert at + 1 + max(yes, no) < length
    assert len(seccomp.encode(inside.program)) == 8 * length


def test_only_low_words_are_looked_at(inside: Filter, guard: Filter) -> None:
    """The kernel takes these arguments as 32 bits or fewer, so no high word can hide anything."""
    number, architecture, *arguments = 0, 4, *range(16, 64, 8)
    for one in (inside, guard):
        loads = {constant for code, _, _, constant in one.program if code == seccomp.LOAD}
        assert loads <= {number, architecture, *arguments}


def test_a_constant_can_be_filled_in_later() -> None:
    late, early = (
        seccomp.program("x86_64", seccomp.rules_of_shared_system((), (pid,), truncation=True))
        for pid in (0x7FEDCBA9, 4242)
    )
    filled = seccomp.encode(late, {0x7FEDCBA9: 4242, -0x7FEDCBA9: -4242})
    assert filled == seccomp.encode(early)


@pytest.mark.parametrize("machine", kernel.MACHINES)
def test_where_landlock_does_not_know_it_readers_cannot_truncate(machine: str) -> None:
    rules = seccomp.rules_of_shared_system((), (4242,), truncation=False)
    program = seccomp.program(machine, rules)
    arch, column = AUDIT_ARCHITECTURES[machine], kernel.MACHINES.index(machine)
    number = ALLOWED["openat"][column]
    assert number is not None
    truncate, create, directory = 0o1000, 0o100, 0
    for flags in (truncate, truncate | 3, truncate | create):
        assert simulate(program, arch, number, directory, 0, flags, 0o644) == refuse()
    for flags in (0, 1, 2, truncate | 1, truncate | 2, truncate | create | 1):
        assert simulate(program, arch, number, directory, 0, flags, 0o644) == ALLOW
    assert simulate(program, arch, number, directory, 0, create | 1, 0o4644) == refuse()


def test_in_guard_nothing_is_shared_with_the_host_by_a_key(guard: Filter) -> None:
    for name in ("shmget", "shmat", "semget", "msgget", "mq_open"):
        assert guard.answer(name) == refuse(), name
