"""The state directory: one user's own, on a local disk, with an install id that never changes."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from pathlib import Path
from typing import Final

from claw_core import durable
from claw_core.errors import LedgerUnavailable
from claw_core.intent import INSTALL
from claw_core.model import INSTANCE_PREFIX

_REMEDIES: Final = {
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "free some of your disk quota",
    errno.EROFS: "it is mounted read-only: set CLAW_STATE to a directory on a writable local disk",
    errno.EACCES: "make the state directory yours (chown) and accessible (chmod 700)",
    errno.EPERM: "make the state directory yours (chown) and accessible (chmod 700)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close some programs: the machine has no open files left",
}


def default_state_directory() -> Path:
    """Where the state is kept unless somebody says otherwise: per user, on the local disk."""
    if chosen := os.environ.get("CLAW_STATE"):
        return Path(chosen)
    if base := os.environ.get("XDG_STATE_HOME"):
        return Path(base) / INSTANCE_PREFIX
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / INSTANCE_PREFIX
    return Path.home() / ".local" / "state" / INSTANCE_PREFIX


def prepare(state: Path, *directories: Path, create: bool) -> str:
    """See that the directories can hold a ledger, and return the install id.

    Args:
        state: the state directory, as a real path.
        directories: those below it that belong to it.
        create: make, durably, what is missing; otherwise nothing is ever made.

    Raises:
        LedgerUnavailable: it is on a shared file system, can be changed by someone else, cannot be
            used, or its install id is damaged.
    """
    try:
        durable.refuse_shared_filesystem(state)
        if create:
            missing = [path for path in state.parents if not path.exists()]
            for path in (*reversed(missing), state, *directories):
                if not path.is_dir():
                    path.mkdir(mode=0o700, exist_ok=True)
                    durable.sync_directory(path.parent)
        for path in (state, *directories):
            _check_owner(path)
        return _install(state / "install", create=create)
    except OSError as error:
        raise unavailable(f"cannot use the state directory {state}", error) from error


def unavailable(what: str, error: OSError) -> LedgerUnavailable:
    """What to raise for a failure of the file system, with the remedy for it."""
    reason = error.strerror or str(error)
    return LedgerUnavailable(
        f"{what}: {reason}",
        remedy=_REMEDIES.get(error.errno or 0, "set CLAW_STATE to another local directory"),
    )


def _install(path: Path, *, create: bool) -> str:
    """Read the install id, made durably and once, however many processes come first."""
    if create and not path.exists():
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        try:
            durable.write_file(temporary, secrets.token_hex(4).encode() + b"\n")
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)  # unlike a rename it never replaces the other one's
        finally:
            temporary.unlink(missing_ok=True)
        durable.sync_directory(path.parent)
    text = path.read_text().strip()
    if not INSTALL.fullmatch(text):
        raise LedgerUnavailable(
            f"the install id in {path} is damaged",
            remedy=f"write the 8 hex digits in the names of your instances into {path}; "
            "if there are no instances, remove the file",
        )
    return text


def _check_owner(path: Path) -> None:
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise LedgerUnavailable(
            f"{path} belongs to the user {status.st_uid}, not to you ({os.geteuid()})",
            remedy="set CLAW_STATE to a directory of your own",
        )
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise LedgerUnavailable(f"others can change {path}", remedy=f"chmod 700 {path}")
