"""The console script: answers `--version` before anything heavy is imported."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the `claw` command and exit with its code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the first file that is opened would get its number
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode))
    if sys.argv[1:] in (["--version"], ["-V"]):
        from claw_core._version import __version__

        sys.stdout.write(f"claw {__version__}\n")
        return
    from claw_core.cli import claw

    claw()


if __name__ == "__main__":
    main()
