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

KILLER: Final = """
exec 2>/dev/null
keeper=$1 marker=$2 root=$3 all=$4 mine=" $3 " round=0
while [ $round -lt 500 ]; do
    round=$((round + 1)) found=
    for entry in /proc/[0-9]*; do
        pid=${entry#/proc/}
        case $pid in 1|"$keeper"|$$) continue ;; esac
        IFS= read -r stat < "$entry/stat" || continue
        set -- ${stat##*) }
        [ "$1" = Z ] && continue
        hit=$all
        [ -n "$root" ] && [ "$4" = "$root" ] && hit=1
        case $mine in *" $2 "*|*" $pid "*) hit=1 ;; esac
        if [ -z "$hit" ]; then
            while IFS= read -r line || [ -n "$line" ]; do
                case $line in *"$marker"*) hit=1 ;; esac
            done < "$entry/environ"
        fi
        [ -n "$hit" ] || continue
        mine="$mine$pid " found=1
        kill -9 "$pid"
    done
    [ -n "$found" ] || exit 0
done
exit 1
"""
"""Kills a command with all its descendants, and exits with 0 when it sees none any more.

Arguments: the keeper's pid, a text in the environment of what is to be killed, the pid of the
command (or empty), and `1` to kill everything but the keeper.
"""


def secrets_file(secrets: Mapping[str, str], end: str) -> bytes:
    """What the keeper is told: assignments that any `sh` reads, and the line that ends them."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in secrets.items()]
    return "".join(f"{line}\n" for line in [*lines, end]).encode(errors="surrogateescape")
