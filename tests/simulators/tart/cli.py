"""The command: finds the verb, writes the journal, and fails as Tart does."""

from __future__ import annotations

import importlib
import signal
import sys
from typing import NoReturn

from simulators.tart.errors import Failure, Usage
from simulators.tart.settings import Settings, load

VERBS = {
    "clone": ("clone", "clone"),
    "run": ("run", "run"),
    "set": ("change", "set_machine"),
    "get": ("listing", "get"),
    "list": ("listing", "list_machines"),
    "ip": ("ip", "ip"),
    "stop": ("stop", "stop"),
    "suspend": ("stop", "suspend"),
    "delete": ("delete", "delete"),
    "rename": ("change", "rename"),
    "exec": ("exec", "exec_command"),
    "pull": ("pull", "pull"),
    "fqn": ("pull", "fqn"),
}
"""The module and the function of every verb; a module is loaded when its verb is called."""

OTHERS = {"create", "push", "import", "export", "login", "logout", "prune"}
"""Verbs of Tart that are not simulated."""

HELP = (
    "OVERVIEW: Manage macOS and Linux virtual machines\n\nUSAGE: tart <subcommand>\n\nSUBCOMMANDS:"
)


def main(argv: list[str]) -> NoReturn:
    """Do what a command line says, and exit."""
    signal.signal(signal.SIGINT, signal.SIG_IGN if argv[:1] == ["run"] else signal.SIG_DFL)
    if argv[:1] != ["run"]:  # which finds its own way of dying
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    settings = load()
    settings.journal.begin(argv)
    code = _call(settings, argv)
    sys.stdout.flush()
    settings.journal.end(code)
    sys.exit(code)


def _call(settings: Settings, argv: list[str]) -> int:
    verb = argv[0] if argv else "--help"
    try:
        if verb == "--version":
            print(settings["version"])
            return 0
        if "--help" in argv[: 2 if verb != "exec" else 1] or not argv:
            print(HELP, *(f"  {name}" for name in VERBS), sep="\n")
            return 0
        if verb in OTHERS:
            raise Failure(f"the simulated tart does not know how to {verb}", 70)
        if verb not in VERBS:
            what = "Unknown option" if verb.startswith("-") else "Unexpected argument"
            raise Usage(f"{what} '{verb}'")
        module, function = VERBS[verb]
        call = getattr(importlib.import_module(f"simulators.tart.{module}"), function)
        return int(call(settings, argv[1:]))
    except Failure as failure:
        print(f"Error: {failure.text}" if failure.prefix else failure.text, file=sys.stderr)
        if isinstance(failure, Usage):
            tail = f" {verb}" if verb in VERBS else ""
            print(f"Usage: tart{tail} ...", file=sys.stderr)
            print(f"  See 'tart{tail} --help' for more information.", file=sys.stderr)
        return failure.code
    except SystemExit as end:
        return int(end.code or 0)
