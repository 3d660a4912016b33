"""Becomes `tart exec` for an SSH connection, which its standard error must not get into.

Run as a script by asyncssh, which reads both outputs of a proxy command as one and takes the end
of either for the end of the connection. Arguments: `TART_HOME`, a comma list of variables that the
command does not get, and the command.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Keep the standard error open and silent, and run the command."""
    home, without, *command = sys.argv[1:]
    os.set_inheritable(os.dup(2), True)  # noqa: FBT003, RUF100 - whether it is
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    env = {name: value for name, value in os.environ.items() if name not in without.split(",")}
    env.update(TART_HOME=home, TART_NO_AUTO_PRUNE="1")
    os.execve(command[0], command, env)  # noqa: S606 - that is what it is for


if __name__ == "__main__":
    main()
