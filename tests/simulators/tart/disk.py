"""The content of a disk: the upper layer over the host's own tree, and how it is copied."""

from __future__ import annotations

import os
import stat

KEPT = {"bin", "lib", "lib32", "lib64", "libx32", "sbin", "usr", "etc"}
"""What a guest sees of its host; everything else at the top is hidden."""

PASSWORD = "$5$tart$C992hnXbGQ1xZPLTat1utkqkWzthMyh2Y3AhY3AvIe3"  # of "admin"

# The account of the vendor's images: admin, with the password admin, and sudo without one.
ACCOUNTS = {
    "darwin": ("admin", 501, 20, "/Users/admin", "/bin/zsh"),
    "linux": ("admin", 1000, 1000, "/home/admin", "/bin/bash"),
}
IDENTITIES = {501: [20, 80], 1000: [1000, 27]}
"""The groups of a user by its number."""

GROUPS = {
    "root:0": "",
    "daemon:1": "",
    "tty:5": "",
    "staff:20": "",
    "sudo:27": "",
    "utmp:43": "",
    "admin:80": "admin",
    "admins:1000": "",
    "nogroup:65534": "",
}

SSHD = """\
UsePAM no
PermitRootLogin no
PasswordAuthentication yes
AcceptEnv LANG LC_*
PrintMotd no
PrintLastLog no
UseDNS no
Subsystem sftp internal-sftp
SetEnv PATH=/usr/bin:/bin:/usr/sbin:/sbin
"""
SUDOERS = """\
Defaults env_reset, secure_path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
root ALL=(ALL:ALL) ALL
admin ALL=(ALL:ALL) NOPASSWD: ALL
"""
ASK = """\
#!/bin/sh
# %s
reply=$(mktemp -u /run/machine/XXXXXXXX) && mkfifo "$reply" || exit 1
echo "%s $reply" > /run/machine/requests
read -r answer < "$reply"
rm -f "$reply"
"""
SHUTDOWN = """\
[ "$(id -u)" = 0 ] || { echo "shutdown: NOT super-user" >&2; exit 1; }
"""
VIRTIOFS = """\
#!/bin/sh
exec mount --rbind "/run/virtiofs/$1" "$2"
"""


def copy(source: str, target: str) -> None:
    """Copy a tree with owners, links, times and overlay marks to a path that is free.

    Raises:
        OSError: it could not be copied whole.
    """
    argv = ["cp", "-a", "--reflink=auto", source, target]
    silent = [(os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)]
    pid = os.posix_spawnp("cp", argv, os.environ, file_actions=silent)
    if os.waitpid(pid, 0)[1] != 0:
        raise OSError(f"{source} could not be copied to {target}")


def make(path: str, system: str) -> None:
    """Make the content of a new disk.

    Args:
        path: a directory that does not exist yet.
        system: `darwin` or `linux`.
    """
    user, uid, gid, home, shell = ACCOUNTS[system]
    os.mkdir(path, 0o755)
    for name in set(os.listdir("/")) - KEPT:
        os.mknod(os.path.join(path, name), stat.S_IFCHR, 0)  # a whiteout
    for name in ("dev", "proc", "run", "sys", "root", "tmp", "var", "var/tmp", "var/root"):
        _folder(path, name)
    _folder(path, "Volumes/My Shared Files" if system == "darwin" else "home")
    _folder(path, home.lstrip("/"))
    os.chown(path + home, uid, gid)
    os.chmod(path + home, 0o750)
    for name in ("tmp", "var/tmp"):
        os.chmod(os.path.join(path, name), 0o1777)

    root = f"root:x:0:0:root:{'/var/root' if system == 'darwin' else '/root'}:/bin/sh"
    nobody = (
        "sshd:x:75:65534::/var/empty:/usr/sbin/nologin\nnobody:x:65534:65534::/:/usr/sbin/nologin"
    )
    _write(path, "etc/passwd", f"{root}\n{nobody}\n{user}:x:{uid}:{gid}:{user}:{home}:{shell}\n")
    _write(
        path, "etc/shadow", f"root:*:1::::::\nsshd:*:1::::::\n{user}:{PASSWORD}:1::::::\n", 0o600
    )
    groups = (group.replace(":", ":x:") + f":{who}\n" for group, who in GROUPS.items())
    _write(path, "etc/group", "".join(groups))
    _write(path, "etc/hostname", "admins-Virtual-Machine\n")
    _write(path, "etc/hosts", "127.0.0.1 localhost admins-Virtual-Machine\n")
    _write(path, "etc/sudoers", SUDOERS, 0o440)
    _write(path, "etc/profile", "export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\n")
    _write(path, "etc/bash.bashrc", "")
    _folder(path, "etc/ssh")
    _write(path, "etc/ssh/sshd_config", SSHD)
    _tools(path, system)
    for kind in ("ed25519", "ecdsa"):
        key = os.path.join(path, "etc/ssh", f"ssh_host_{kind}_key")
        argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "root@image", "-f", key]
        pid = os.posix_spawnp("ssh-keygen", argv, os.environ)
        assert os.waitpid(pid, 0)[1] == 0, "ssh-keygen failed"


def _tools(path: str, system: str) -> None:
    """The few commands of a guest that mean something to its machine."""
    shutdown = ASK % ("Ends the machine cleanly.", "shutdown")
    shutdown = shutdown.replace("\n", "\n" + SHUTDOWN, 1)
    for name in ("usr/sbin/shutdown", "usr/sbin/poweroff", "usr/sbin/halt"):
        _write(path, name, shutdown, 0o755)
    _write(path, "usr/bin/sync", ASK % ("Writes to the disk what has not been yet.", "sync"), 0o755)
    if system == "darwin":
        _write(path, "usr/sbin/mount_virtiofs", VIRTIOFS, 0o755)
        os.symlink("bash", os.path.join(path, "usr/bin/zsh"))
    else:
        _write(path, "usr/sbin/mount.virtiofs", VIRTIOFS, 0o755)


def _folder(path: str, name: str) -> None:
    """A directory that hides what the host has in its place."""
    top = os.path.join(path, name.split("/")[0])
    if os.path.lexists(top) and not os.path.isdir(top):
        os.unlink(top)
    folder = os.path.join(path, name)
    os.makedirs(folder, 0o755, exist_ok=True)
    os.setxattr(folder, "trusted.overlay.opaque", b"y")


def _write(path: str, name: str, text: str, mode: int = 0o644) -> None:
    target = os.path.join(path, name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(target, mode)
