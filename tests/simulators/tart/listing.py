"""`tart list` and `tart get`: what there is, as text or as JSON."""

from __future__ import annotations

import time
from typing import Any

from simulators.tart import faults, foundation
from simulators.tart.arguments import FLAG, VALUE, parse
from simulators.tart.errors import Usage
from simulators.tart.library import Library
from simulators.tart.machine import GIGABYTE, Machine
from simulators.tart.settings import Settings


def _format(text: str) -> str:
    if text not in {"text", "json"}:
        raise Usage(f"The value '{text}' is invalid for '--format <format>'")
    return text


def list_machines(settings: Settings, argv: list[str]) -> int:
    options = {"--source": VALUE, "--format": VALUE, "-q": "--quiet", "--quiet": FLAG}
    arguments = parse(argv, options, [])
    source = arguments.value("--source")
    if source not in {"", "local", "oci"}:
        raise Usage(f"The value '{source}' is invalid for '--source <source>'")
    form = _format(arguments.value("--format", "text"))
    hit = faults.strike(settings, "list")
    faults.fail(hit, "list")
    library = Library(settings.home)
    library.collect(noise=settings["garbage_noise"])
    rows = []
    if source in {"", "local"}:
        rows += [_row("local", one, settings) for one in library.machines()]
    if source in {"", "oci"}:
        rows += [_row("OCI", one, settings) for one in library.images()]
    rows.sort(key=lambda row: str(row["Name"]))
    if arguments.flag("--quiet"):
        for row in rows:
            print(row["Name"])
    elif form == "json":
        text = foundation.pretty(rows)
        text = text[: len(text) // 2] if "truncated" in hit else text
        print("Segmentation fault" if "invalid" in hit else text)
    else:
        print(_table(rows))
    return 0


def _row(source: str, machine: Machine, settings: Settings) -> dict[str, Any]:
    state = machine.state()
    size = machine.used_bytes() // GIGABYTE
    row: dict[str, Any] = {
        "Source": source,
        "Name": machine.name,
        "Disk": machine.disk_bytes() // GIGABYTE,
        "Size": size,
        "Running": state == "running",
        "State": state,
    }
    if settings.version < (2, 31):
        row["SizeOnDisk"] = size
    else:
        accessed = time.gmtime(machine.accessed())
        row["Accessed"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", accessed)
    return row


def _table(rows: list[dict[str, Any]]) -> str:
    """Left-aligned columns, a space between them; of no rows, nothing."""
    if not rows:
        return ""
    size = "Accessed" if "Accessed" in rows[0] else "SizeOnDisk"
    columns = ["Source", "Name", "Disk", "Size", size, "State"]
    lines = [columns, *([str(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    padded = [
        " ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))
        for line in lines
    ]
    return "\n".join(line.rstrip() for line in padded)


def get(settings: Settings, argv: list[str]) -> int:
    arguments = parse(argv, {"--format": VALUE}, ["name"])
    form = _format(arguments.value("--format", "text"))
    faults.strike(settings, "get", arguments.names[0])
    library = Library(settings.home)
    library.collect(noise=settings["garbage_noise"])
    machine = library.find(arguments.names[0])
    config, state = machine.config(), machine.state()
    display = config["display"]
    row = {
        "OS": config["os"],
        "CPU": config["cpuCount"],
        "Memory": config["memorySize"] // 1024**2,
        "Disk": machine.disk_bytes() // GIGABYTE,
        "DiskFormat": config["diskFormat"],
        "Size": f"{machine.used_bytes() / GIGABYTE:.3f}",
        "Display": f"{display['width']}x{display['height']}",
        "Running": state == "running",
        "State": state,
    }
    if form == "json":
        print(foundation.pretty(row))
    else:
        texts = {
            name: str(value).lower() if value in (True, False) else str(value)
            for name, value in row.items()
        }
        widths = {name: max(len(name), len(text)) for name, text in texts.items()}
        print(" ".join(name.ljust(width) for name, width in widths.items()).rstrip())
        print(" ".join(texts[name].ljust(width) for name, width in widths.items()).rstrip())
    return 0
