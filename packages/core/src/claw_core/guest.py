"""Programs that runtimes run inside of Linux instances: few lines for the `sh` of any image.

They use builtins only, so that nothing else need be in the image. What varies is an argument.
"""

from __future__ import annotations

from typing import Final

KILLER: Final = """
exec 2>/dev/null
keeper=$1 marker=$2 root=$3 all=$4 mine=" $3 " round=0 calm=0
[ -z "$root" ] || kill -9 "-$root"
[ "$all-$keeper" != 1-1 ] || kill -9 -1
while [ $round -lt 500 ]; do
    round=$((round + 1)) found=
    for entry in /proc/[0-9]*; do
        pid=${entry#/proc/}
        case $pid in 1|"$keeper"|$$) continue ;; esac
        IFS= read -r stat < "$entry/stat" || { found=${found:-gone}; continue; }
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
        if [ -n "$hit" ]; then
            mine="$mine$pid " found=some
            kill -9 "$pid"
        elif ! [ -e "$entry" ]; then
            found=${found:-gone}
        fi
    done
    case $found in
    some) calm=0 ;;
    gone) calm=$((calm + 1)) ;;
    *) exit 0 ;;
    esac
    [ $calm -lt 50 ] || exit 0
done
exit 1
"""
"""Kills a command with all its descendants, and exits with 0 when it sees none any more.

Its process group goes at once, so that none of it sees the end of another; and where everything but
the first process is killed, the kernel does that at once. What ends by itself while it is looked at
may have started what is not in the list: then it is looked at again, some times, for it may also be
a stranger's.

Arguments: the keeper's pid, a text in the environment of what is to be killed, the pid of the
command (or empty), and `1` to kill everything but the keeper.
"""
