"""What guests are made of: a file tree of nothing but busybox."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

BUSYBOX = Path("/usr/bin/busybox")
APPLETS = (
    "sh ash true false cat echo sleep tar ls id env ps kill killall dd head tail wc sha256sum "
    "md5sum mkdir rm rmdir mv cp ln printf test [ touch grep sed awk od seq chmod chown stat "
    "setsid nohup mount umount timeout tr mkfifo sort find xargs du df hostname uname date "
    "which sync yes readlink realpath pwd dirname basename cut uniq tee mktemp nproc ip whoami "
    "expr gzip gunzip base64 cmp"
)


@functools.cache
def missing() -> str | None:
    """Why no guests can be made here."""
    if not BUSYBOX.exists():
        return "not installed: busybox-static"
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    if shutil.which("unshare") is None:
        return "not installed: unshare"
    done = subprocess.run(
        ["unshare", *user, "--mount", "--pid", "--fork", "true"], capture_output=True, check=False
    )
    return done.stderr.decode() if done.returncode else None


def make_root(root: Path) -> None:
    """Make a file tree of nothing but busybox."""
    for name in ("bin", "etc", "root", "home", "proc", "sys", "dev", "usr/bin", "tmp", "run"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    try:
        (root / "bin/busybox").hardlink_to(BUSYBOX)
    except OSError:  # another file system
        shutil.copy(BUSYBOX, root / "bin/busybox")
    for applet in APPLETS.split():
        (root / "bin" / applet).symlink_to("busybox")
    rows = ("root:x:0:0:root:/root:/bin/sh", "agent:x:1000:1000:agent:/home/agent:/bin/sh")
    (root / "etc/passwd").write_text("\n".join(rows) + "\n")
    (root / "etc/group").write_text("root:x:0:\nagent:x:1000:\n")
