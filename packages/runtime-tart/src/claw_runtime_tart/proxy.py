"""Becomes `tart exec` for an SSH connection, which its standard error must not get into.

Run as a script by asyncssh, which reads both outputs of a proxy command as one and takes the end
of either for the end of the connection. Arguments: `TART_HOME`, and the command.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Keep the standard error open and silent, and run the command."""
    os.set_inheritable(os.dup(2), True)  # noqa: FBT003, RUF100 - whether it is
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.environ.update(TART_HOME=sys.argv[1], TART_NO_AUTO_PRUNE="1")
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - that is what it is for


if __name__ == "__main__":
    main()
