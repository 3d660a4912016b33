"""What the simulation asks of the machine that it runs on, and its processes there."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
TOOLS = ("cp", "ip", "mount", "ssh-keygen", "sshd", "sudo", "unshare")


@cache
def missing() -> str | None:
    """Why there can be no simulated guest here, or None."""
    if os.geteuid() != 0:
        return "simulated guests take root"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if absent := [tool for tool in TOOLS if shutil.which(tool, path=path) is None]:
        return f"not installed: {', '.join(absent)}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.64.0.1", 22))
        except OSError as error:
            return f"port 22 of 127.64.0.1 is taken: {error}"
    with tempfile.TemporaryDirectory(prefix="tart-", dir="/var/tmp") as directory:
        for name in ("upper", "work", "root"):
            (Path(directory) / name).mkdir()
        options = "lowerdir=/,upperdir=upper,workdir=work,index=off"
        mount = ("mount", "-t", "overlay", "overlay", "-o", options, "root")
        tried = subprocess.run(
            ["unshare", "-mpui", "--fork", *mount], cwd=directory, capture_output=True, check=False
        )
        if tried.returncode:
            return f"no namespace with an overlay: {tried.stderr.decode().strip()}"
    return None


def processes(config: str) -> dict[int, str]:
    """The command lines of all live processes of the world with this configuration.

    These are the calls of its tools, which have it in their environment, and whatever is in a
    process namespace with one of them, which is a guest.
    """
    own = os.stat("/proc/self/ns/pid").st_ino
    mark = f"FAKE_TART_CONFIG={config}\0".encode()
    guests, found = set(), {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            space = os.stat(f"/proc/{pid}/ns/pid").st_ino
            ours = (
                f"{HERE}/".encode() in command and mark in Path(f"/proc/{pid}/environ").read_bytes()
            )
        except OSError:
            continue  # it has just ended
        if command and (ours or space != own):  # a zombie has none
            text = command.replace(b"\0", b" ").decode(errors="replace").strip()
            found[pid] = (text, space, ours)
        if ours and space != own:
            guests.add(space)
    return {pid: text for pid, (text, space, ours) in found.items() if ours or space in guests}
