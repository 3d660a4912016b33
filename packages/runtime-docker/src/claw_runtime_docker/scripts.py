"""The programs of an instance: few lines for the `sh` of any image.

They use builtins only, so that nothing else need be in the image. What varies is an argument.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final

OWN: Final = "/run/claw"
"""Directory of claw's own, in memory; no image has it, so that its mode is what we ask for."""
SECRETS: Final = f"{OWN}/secrets"
"""Where the secrets lie: readable for the instance's user only, and in no snapshot."""

KEEPER: Final = f"""
umask 077
while IFS= read -r line && [ "$line" != "$1" ]; do printf '%s\\n' "$line"; done > {SECRETS} || exit
echo "$1 $$"
while IFS= read -r line; do :; done
"""
"""Holds an instance alive while its standard input is open: the dead-man's switch.

First it keeps what comes before a line that is its argument; then it says that line and its pid.
"""

COMMAND: Final = f"""
if ! cd "$2" 2>/dev/null; then echo "$1 workdir" >&2; exit 126; fi
case $5 in
*/*)
    if ! [ -e "$5" ]; then echo "$1 missing" >&2; exit 127; fi
    if ! [ -x "$5" ] || [ -d "$5" ]; then echo "$1 denied" >&2; exit 126; fi ;;
*)
    if ! command -v "$5" >/dev/null; then echo "$1 missing" >&2; exit 127; fi ;;
esac
[ -z "$3" ] || stty rows "$3" cols "$4" 2>/dev/null
[ -s {SECRETS} ] && . {SECRETS}
echo "$1 $$" >&2
unset OLDPWD
shift 4
exec "$@"
"""
"""Becomes a command, after one line on standard error: a token, and its pid or why it is none.

Arguments: the token, the directory to start in, rows and columns of the terminal (or empty), and
the command. No variable is set: the environment is the command's.
"""


def secrets_file(secrets: Mapping[str, str], end: str) -> bytes:
    """What the keeper is told: assignments that any `sh` reads, and the line that ends them."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in secrets.items()]
    return "".join(f"{line}\n" for line in [*lines, end]).encode(errors="surrogateescape")
