"""The programs of an instance: few lines for the `sh` of any image.

What varies is an argument, but for the environment of commands: a variable brings it, so that no
value is ever an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MARK: Final = "\x1e"
"""Begins what is said about a command on its own streams: no text has it."""
TAKEN: Final = "taken"
"""Said for each piece of input."""
ENVIRONMENT: Final = "CLAW_ENVIRONMENT"
"""Variable that brings a command's environment, as assignments that any `sh` reads."""

KEEPER: Final = """
token=$1
shift
for place; do mkdir -p "$place" && chmod 1777 "$place"; done 2>/dev/null
echo "$token $$"
while IFS= read -r line; do :; done
"""
"""Holds an instance alive while its standard input is open: the dead-man's switch.

Arguments: a token, and directories that everybody inside may write to. It says the token and its
pid.
"""

COMMAND: Final = f"""
eval "${ENVIRONMENT}"
unset {ENVIRONMENT}
if ! cd "$2" 2>/dev/null; then echo "{MARK}$1 workdir" >&2; exit 126; fi
case $4 in
*/*)
    if ! [ -e "$4" ]; then echo "{MARK}$1 missing" >&2; exit 127; fi
    if ! [ -x "$4" ] || [ -d "$4" ]; then echo "{MARK}$1 denied" >&2; exit 126; fi ;;
*)
    if ! command -v "$4" >/dev/null; then echo "{MARK}$1 missing" >&2; exit 127; fi ;;
esac
claw_feed() {{
    trap '' 1 2 3 10 12 14 15
    while IFS= read -r size; do
        dd bs="$size" count=1 iflag=fullblock 2>/dev/null || exit
        echo "{MARK}$1 {TAKEN}" >&2
    done
}}
claw_run() {{
    trap : 1 2 3 10 12 13 14 15
    (shift 3; exec "$@")
    set -- "$1" "$?"
    echo "{MARK}$1 $2"
    echo "{MARK}$1 $2" >&2
    exit "$2"
}}
unset OLDPWD
trap : 1 2 3 10 12 13 14 15
echo "{MARK}$1 $$" >&2
if [ -n "$3" ]; then claw_feed "$1" | claw_run "$@"; else claw_run "$@"; fi
"""
"""Runs a command, and says on standard error its group or why it is not started, and how it ended.

The end is said on both streams, as it is the only proof that a stream is whole. Signals to the
group reach the command, and not who tells of its end. Its input comes in pieces, each behind a line
with its size; that one was taken is said, too. No variable is set: the environment is the
command's. Arguments: a token, the directory to start in, `1` where there is input, and the command.
"""

UPLOAD: Final = """
mkdir -p -- "$1" || exit
tar -x -o -p -f - -C "$1"
code=$?
cat >/dev/null
[ -z "$2" ] || [ "$code" != 0 ] || exec chown "$2" "$1/$3"
exit "$code"
"""
"""Unpacks an archive, and reads to its end.

Arguments: the directory, and for one file whose it is to be: its owner and its name.
"""

PACK: Final = """
mounted='|'
for place; do mounted="$mounted$place|"; done
while read -r _ place _; do mounted="$mounted$(printf %b "$place")|"; done < /proc/mounts
cd / && set -- ./* ./.[!.]* ./..?*
more=1
while [ -n "$more" ]; do
    more= count=$#
    while [ "$count" -gt 0 ]; do
        count=$((count - 1)) one=$1
        shift
        [ -e "$one" ] || [ -L "$one" ] || continue
        case $mounted in
        *"|${one#.}|"*) ;;
        *"|${one#.}/"*) more=1; set -- "$@" "$one"/* "$one"/.[!.]* "$one"/..?* ;;
        *) set -- "$@" "$one" ;;
        esac
    done
done
exec tar -c -f - "$@"
"""
"""Packs the disk, and nothing that is mounted; not every `tar` can leave things out by itself.

A directory that something is mounted in stands for nothing but the rest of what is in it.
Arguments: directories that are left out as well.
"""


def assignments(variables: Mapping[str, str]) -> str:
    """Assignments of variables whose names any `sh` can set; every value is in quotes."""
    return "".join(
        "export {}='{}'\n".format(name, value.replace("'", "'\\''"))
        for name, value in variables.items()
    )
