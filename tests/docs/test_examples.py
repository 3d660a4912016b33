"""Every example of the documentation runs, and every hook and option is described."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import claw_core
import claw_runtime_apple
import claw_runtime_docker
import claw_runtime_tart
from claw_core import failpoints
from claw_core.cli import COMMANDS, claw, run
from claw_core.hookspecs import Observer, Runtime
from claw_core.relay import HOOKS
from cli.support import hiding

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLE = re.compile(r"<!-- test -->\n```(python|console)\n(.*?)```", re.DOTALL)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def examples() -> list[tuple[str, str, str]]:
    found = []
    for page in PAGES:
        for number, match in enumerate(EXAMPLE.finditer(page.read_text())):
            found.append((f"{page.relative_to(ROOT)}-{number}", match[1], match[2]))
    return found


@pytest.mark.parametrize(("name", "kind", "text"), examples(), ids=lambda value: str(value)[:40])
def test_the_example_runs(name: str, kind: str, text: str, tmp_path: Path) -> None:
    """Console examples run line by line; what stands below a command is its exact output."""
    (tmp_path / "example.py").write_text(text)
    if kind == "python":
        subprocess.run([sys.executable, "-W", "error", "example.py"], cwd=tmp_path, check=True)
        return
    # As on a machine where nobody has installed what takes a Mac.
    environment = hiding(tmp_path, "claw-runtime-tart", "claw-runtime-apple")
    environment["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    for command, expected in commands(text):
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        shown = done.stdout + done.stderr
        assert shown == expected, f"{command}\n{shown}"


def commands(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for line in text.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif line.startswith("> ") and found:
            found[-1] = (found[-1][0] + line[2:], "")
        else:
            found[-1] = (found[-1][0], found[-1][1] + line)
    return found


def test_there_are_examples() -> None:
    assert len(examples()) >= 5


def test_every_hook_is_described_with_its_signature() -> None:
    page = (ROOT / "docs/reference/hooks.md").read_text()
    for owner, names in ((Runtime, HOOKS), (Observer, ("around",))):
        for name in names:
            arguments = list(inspect.signature(getattr(owner, name)).parameters)[1:]
            assert f"`{name}({', '.join(arguments)})`" in page
    documented = set(re.findall(r"^#+ `(\w+)\(", page, re.MULTILINE))
    assert documented == {*HOOKS, "around"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_described(name: str) -> None:
    page = (ROOT / "docs/reference/cli.md").read_text()
    assert f"## `claw {name}`" in page
    section = page.split(f"## `claw {name}`")[1].split("\n## ")[0]
    command = claw.get_command(click.Context(claw), name)
    assert command is not None
    if name == "shell":  # its options are described where they come from
        others = {parameter.name for parameter in run.command.params}
        command.params = [one for one in command.params if one.name not in others]
    parts = command.commands.values() if isinstance(command, click.Group) else [command]
    options = [
        option
        for part in parts
        for parameter in part.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    ]
    for option in options:
        assert f"`{option}" in section, option
    described = set(re.findall(r"`(--?[a-z][a-z-]*)", section))
    known = {option for parameter in run.command.params for option in parameter.opts}
    assert described <= {*options, "--help", "-h", *(known if name == "shell" else ())}


def test_every_relative_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in LINK.findall(BLOCK.sub("", page.read_text())):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_every_failpoint_is_described() -> None:
    """All modules are imported, so that every point is declared."""
    for package in (claw_core, claw_runtime_docker, claw_runtime_tart, claw_runtime_apple):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(("launcher", "__main__")):
                importlib.import_module(module.name)
    page = (ROOT / "docs/reference/failpoints.md").read_text()
    described = set(re.findall(r"^\| `([a-z]+\.[a-z-]+)` \|", page, re.MULTILINE))
    points = {
        name: what for name, what in failpoints.POINTS.items() if not name.startswith("test.")
    }
    assert described == set(points)
    for name, meaning in points.items():
        assert f"| `{name}` | {meaning}" in page, name
