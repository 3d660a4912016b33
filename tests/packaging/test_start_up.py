"""What is imported when: start-up time is a promise, and modules are what it is made of."""

from __future__ import annotations

import subprocess
import sys

SHOW = "import sys, {module}; print(*sorted(sys.modules))"
HEAVY = {"asyncssh", "rich", "aiohttp", "structlog", "docker", "cattrs", "hypothesis", "pytest"}


def modules(program: str, *args: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *args], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_importing_claw_core_imports_next_to_nothing() -> None:
    loaded = modules(SHOW.format(module="claw_core"))
    assert not loaded & ({"click", "attr", "attrs", "pluggy", "asyncio"} | HEAVY)


def test_the_version_is_said_before_anything_is_imported() -> None:
    program = (
        "import sys; sys.argv = ['claw', '--version']\n"
        "from claw_core.__main__ import main\n"
        "main(); print(*sorted(sys.modules))"
    )
    assert not modules(program) & ({"click", "attr", "attrs", "pluggy", "asyncio"} | HEAVY)


def test_help_imports_no_command() -> None:
    program = (
        "import sys; sys.argv = ['claw', '--help']\n"
        "from claw_core.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sorted(sys.modules))"
    )
    loaded = modules(program)
    assert not [name for name in loaded if name.startswith("claw_core.cli.")]
    assert not loaded & ({"attr", "attrs", "pluggy", "asyncio"} | HEAVY)


def test_a_run_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['claw', 'run', '-r', 'local', '--', 'true']\n"
        "from claw_core.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(*sorted(sys.modules))"
    )
    rare = {"local.terminal", "cli.terminal", "serving", "remote", "archive", "unpack"}
    assert not modules(program) & (HEAVY | {f"claw_core.{name}" for name in rare})


def test_every_public_name_is_there() -> None:
    import claw_core

    for name in claw_core.__all__:
        assert getattr(claw_core, name) is not None
    assert sorted(claw_core.__all__) == sorted(set(claw_core.__all__))
