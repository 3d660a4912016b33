"""What the shim says of NanoClaw's containers: `ps`, `inspect`, and Apple's `ls`."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from claw_core.errors import ClawError, ConfigError
from claw_core.ledger import Ledger
from claw_core.statedir import default_state_directory
from claw_nanoclaw.shim import arguments
from claw_nanoclaw.shim.records import Record, Records, details, instances
from claw_nanoclaw.shim.templates import render

LISTING_TIMEOUT: Final = 10.0
"""Seconds that the real command has to list what it has."""
_SHORT: Final = {"-a": "--all", "-q": "--quiet", "-f": "--filter"}


@attrs.frozen
class Container:
    """A record, and whether its client lives; where it does not, its instance is being removed."""

    record: Record
    running: bool

    def row(self) -> dict[str, Any]:
        """What `docker ps` shows of it, by the names that templates have for it."""
        one, age = self.record, max(0, int(time.time() - self.record.started))
        return {
            "ID": one.identity[:12],
            "Image": one.image,
            "Names": one.name,
            "State": "running" if self.running else "removing",
            "Status": f"Up {age} seconds" if self.running else "Removal In Progress",
            "Labels": ",".join(f"{name}={value}" for name, value in one.labels.items()),
            "_labels": one.labels,
        }


def containers(records: Records, root: str | None = None) -> list[Container]:
    """What exists or may exist, of one installation or of all; what is gone is forgotten."""
    found, ledger = [], None
    for record in records.all():
        if root is not None and record.root != root:
            continue
        running = records.alive(record)
        if not running:
            ledger = ledger or Ledger.open(default_state_directory())
            if not instances(record, ledger):
                records.forget(record)
                continue
        found.append(Container(record, running))
    return found


def ps(words: Sequence[str], root: str) -> int:
    """Answer `docker ps` for one installation.

    Raises:
        ConfigError: an option, filter or template that is not supported.
    """
    given, rest = arguments.options(
        "ps",
        words,
        _SHORT,
        frozenset({"--all", "--quiet", "--no-trunc"}),
        frozenset({"--filter", "--format"}),
    )
    if rest:
        raise ConfigError(f"docker ps takes no arguments, got {rest[0]!r}", remedy="leave it out")
    filters = [_filter(text) for text in given.get("--filter", ())]
    rows = [one.row() for one in containers(Records(), root)]
    shown = [row for row in rows if _matches(row, filters)]
    template = given.get("--format", ["table"])[-1]
    if "--quiet" in given:
        template = "{{.ID}}"
    if template == "table":
        print("CONTAINER ID   STATE     NAMES")  # noqa: T201 - this is a command
        template = "{{.ID}}   {{.State}}   {{.Names}}"
    elif template == "json":
        template = "{{json .}}"
    for row in shown:
        print(render(template, row))  # noqa: T201 - the same
    return 0


def _filter(text: str) -> tuple[str, str]:
    kind, _, value = text.partition("=")
    if kind not in {"name", "label", "status"}:
        raise ConfigError(
            f"docker ps --filter {text} is not supported", remedy="use name, label or status"
        )
    return kind, value


def _matches(row: Mapping[str, Any], filters: Iterable[tuple[str, str]]) -> bool:
    """As Docker does it: one of the names, one of the states, and all of the labels."""
    wanted: dict[str, list[str]] = {"name": [], "label": [], "status": []}
    for kind, value in filters:
        wanted[kind].append(value)
    labels = {**row["_labels"]}
    return (
        (not wanted["name"] or any(_named(row["Names"], value) for value in wanted["name"]))
        and (not wanted["status"] or row["State"] in wanted["status"])
        and all(
            labels.get(name) == value if equals else name in labels
            for name, equals, value in (text.partition("=") for text in wanted["label"])
        )
    )


def _named(name: str, wanted: str) -> bool:
    anchored = wanted.startswith("^")
    text = wanted.removeprefix("^").removeprefix("/")
    if text.endswith("$"):
        text = text[:-1]
        return name == text if anchored else name.endswith(text)
    return name.startswith(text) if anchored else text in name


def knows(words: Sequence[str], root: str) -> bool:
    """Whether a container of this installation is among the words."""
    return any(one.record.name in words for one in containers(Records(), root))


def inspect(words: Sequence[str], root: str) -> int:
    """Answer `docker inspect NAME...`.

    Raises:
        ConfigError: an option or a template that is not supported.
        ClawError: there is no such container.
    """
    given, names = arguments.options(
        "inspect", words, {"-f": "--format"}, frozenset(), frozenset({"--format", "--type"})
    )
    known = {one.record.name: one for one in containers(Records(), root)}
    shown = []
    for name in names:
        if name not in known:
            raise absent(name)
        shown.append(details(known[name].record, running=known[name].running))
    if template := given.get("--format"):
        for one in shown:
            print(render(template[-1], one))  # noqa: T201 - this is a command
    else:
        print(json.dumps(shown, indent=4))  # noqa: T201 - the same
    return 0


def apple_list(words: Sequence[str], real: str, root: str) -> int:
    """Answer `container ls`, with what the real command has beside ours.

    Raises:
        ClawError: the real command fails.
    """
    others: list[Any] = []
    if real:
        done = subprocess.run(
            [real, "ls", *words], capture_output=True, timeout=LISTING_TIMEOUT, check=False
        )
        if done.returncode or "json" not in words:
            print(done.stdout.decode(errors="replace"), end="")  # noqa: T201 - this is a command
            return done.returncode
        others = json.loads(done.stdout or b"[]")
    ours = [
        {"status": "running", "configuration": {"id": one.record.name}}
        for one in containers(Records(), root)
    ]
    print(json.dumps([*others, *ours]))  # noqa: T201 - the same
    return 0


def absent(name: str) -> ClawError:
    """What to raise for a name that is not ours."""
    return ClawError(
        f"No such container: {name}",
        cleaned="nothing was touched",
        remedy="it was not started by this shim; see `claw nanoclaw status`, and use the real "
        "command for it",
    )
