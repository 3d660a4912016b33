"""Makes a prepared machine one whose clones can be told from others, and let us in.

Public images have published host keys and a published password. Before ours is saved its guests get
host keys of their own, whose public one we remember, let in our key, and no password.
"""

from __future__ import annotations

from typing import Final

IDENTITY: Final = "claw-host-key"
"""What the line begins with that tells the host's public key."""

SEAL: Final = f"""
set -eu
as() {{ sudo -n "$@"; }}
as rm -f /etc/ssh/ssh_host_*
as ssh-keygen -A >/dev/null
mkdir -p "$HOME/.ssh"
chmod 700 "$HOME/.ssh"
printf '%s\\n' "$CLAW_KEY" > "$HOME/.ssh/authorized_keys"
chmod 600 "$HOME/.ssh/authorized_keys"
as mkdir -p /etc/ssh/sshd_config.d
printf '%s\\n' 'PasswordAuthentication no' 'KbdInteractiveAuthentication no' |
    as tee /etc/ssh/sshd_config.d/000-claw.conf >/dev/null
if [ -d /System/Volumes/Data ] && ! grep -q '^workspace' /etc/synthetic.conf 2>/dev/null; then
    mkdir -p "$HOME/.claw/workspace"
    printf 'workspace\\t%s\\n' "${{HOME#/}}/.claw/workspace" |
        as tee -a /etc/synthetic.conf >/dev/null
fi
rm -f "$HOME/.bash_history" "$HOME/.zsh_history"
sync
printf '{IDENTITY} %s\\n' "$(cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ed25519_key.pub)"
"""
"""What is run in the guest; our public key is in `CLAW_KEY`.

The root of a macOS guest cannot be written; `synthetic.conf` puts a link `/workspace` there at the
next boot (see synthetic.conf(5)).
"""


def host_key(output: bytes) -> str | None:
    """The public host key that the program told."""
    for line in output.decode(errors="replace").splitlines():
        word, _, key = line.strip().partition(" ")
        if word == IDENTITY and key.startswith("ssh-ed25519 "):
            return key
    return None
