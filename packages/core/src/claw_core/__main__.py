"""The console script: answers `--version` before anything heavy is imported."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the `claw` command and exit with its code."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from claw_core._version import __version__

        sys.stdout.write(f"claw {__version__}\n")
        return
    from claw_core.cli import claw

    claw()


if __name__ == "__main__":
    main()
