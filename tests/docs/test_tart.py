"""The pages about Tart say what the code says, and their examples are what the code takes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import claw_core
import claw_runtime_tart
from claw_core import session
from claw_core.config import sources
from claw_core.config.recipe import Recipe
from claw_runtime_tart import (
    address,
    cli,
    cloning,
    connecting,
    ending,
    machine,
    reached,
    shares,
    ssh,
)
from claw_runtime_tart.runtime import TartRuntime
from claw_runtime_tart.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
HOW_TO = (DOCS / "how-to/use-tart.md").read_text()
REFERENCE = (DOCS / "reference/tart.md").read_text()
ERRORS = {
    *("CapacityExhausted", "ConfigError", "DeadlineExceeded", "Description", "Exit", "GuestLost"),
    *("NoRoute", "Refusal", "RuntimeFault", "SpentInstance", "TeardownFailed", "Unsupported"),
    "fault",
}


def nodes(package: object) -> Iterator[ast.AST]:
    (directory,) = package.__path__  # type: ignore[attr-defined]  # it is a package
    for path in Path(directory).rglob("*.py"):
        yield from ast.walk(ast.parse(path.read_text()))


def literals(node: ast.AST) -> list[str]:
    """The fixed parts of a text, in their order."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    values = [part.value for part in parts if isinstance(part, ast.Constant)]
    return [value.strip() for value in values if isinstance(value, str) and value.strip()]


def messages() -> list[list[str]]:
    """What the runtime's errors say, each as its fixed parts."""
    found = []
    for node in nodes(claw_runtime_tart):
        name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Call) and name in ERRORS:
            texts = node.args[1:2] if name == "fault" else node.args[:1]
            texts += [one.value for one in node.keywords if one.arg == "reason"]
            found += [parts for text in texts if (parts := literals(text))]
    return found


def documented(title: str = "## When something fails") -> list[str]:
    """The messages in the first columns of a section's tables."""
    section = HOW_TO.split(f"\n{title}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| ([^|]*`[^|]*) \|", section, re.MULTILINE)
    return [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]


def test_every_message_is_in_the_tables() -> None:
    assert len(messages()) > 35
    for parts in messages():
        pattern = ".*".join(map(re.escape, parts))
        assert any(re.search(pattern, row) for row in documented()), parts


def test_every_message_in_the_tables_is_one() -> None:
    packages = claw_runtime_tart, claw_core
    known = [text for one in packages for node in nodes(one) for text in literals(node)]
    for row in documented():
        for part in filter(None, (part.strip() for part in row.split("..."))):
            assert any(part in text for text in known), row


def test_what_tart_says_is_what_remedies_are_known_for() -> None:
    assert set(documented("### What Tart says")) == set(cli._REMEDIES)


def test_every_variable_of_the_recipe_is_described() -> None:
    recipe = TartRuntime.recipe
    assert recipe is not None
    table = HOW_TO.split("| variable |")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) == set(Recipe.load(recipe).variables)


@pytest.mark.parametrize("number", range(HOW_TO.count("```toml\n")))
def test_the_examples_are_configurations_or_recipes(number: int, tmp_path: Path) -> None:
    path = tmp_path / "example.toml"
    path.write_text(HOW_TO.split("```toml\n")[number + 1].split("```")[0])
    if "[base]" in path.read_text():
        recipe = Recipe.load(path)
        assert recipe.base["tart"]
        tables = recipe.runtimes
    else:
        document = sources.claw_toml(path)
        assert document is not None
        tables = document.runtimes
    Settings.parse(tables.get("tart", {}))


@pytest.mark.parametrize(
    ("what", "seconds"),
    [
        ("a call of `tart` that only looks, or changes little", cli.CALL_TIMEOUT),
        ("a clone, and waiting for those of others", cloning.CLONE_TIMEOUT),
        ("a connection, each attempt", connecting.PROBE),
        ("between attempts", connecting.PAUSES),
        ("a handshake, the first and the last", connecting.HANDSHAKES),
        ("without a route, until the guest agent is tried", connecting.UNREACHABLE),
        ("of vain attempts, until the address is looked up again", connecting.LOOK_AGAIN),
        ("without a lease, until `tart ip` is asked", address.LATE),
        ("a share, to appear in the guest", shares.PATIENCE),
        ("a command, to end after each of TERM and KILL", ssh.GRACE),
        ("of silence of an ended command's output, until it is not waited for", reached.DRAIN),
        ("a machine, to stop before it is killed", (machine.GRACE, ending.STOP_SECONDS)),
        ("a machine's processes, to end, in an attempt of the teardown", ending.PATIENCE),
        (
            "of asking Tart to delete, until the directory is removed without",
            ending.DELETE_PATIENCE,
        ),
        ("a run, to wait for its turn", session.Deadlines().capacity),
    ],
)
def test_times(what: str, seconds: float | tuple[float, ...]) -> None:
    values = sorted(set(seconds)) if isinstance(seconds, tuple) else [seconds]
    assert f"| {what} | {', '.join(f'{value:g}' for value in values)} |" in REFERENCE
