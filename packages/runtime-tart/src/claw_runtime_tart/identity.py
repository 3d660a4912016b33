"""How we know an image's guests and get in; written beside the image when it is prepared.

The record is in the image's directory, so that it goes with the image. The key is this user's own,
made once; the images that let it in are told its public half.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any, Final, Self

import attrs

from claw_core.errors import RuntimeFault
from claw_core.ledger import default_state_directory

RECORD: Final = "claw.json"


@attrs.frozen
class Identity:
    """What is known of an image.

    Attributes:
        host_key: public key of its guests.
        client_key: public half of the key that they let in.
        username: whom they let in with it.
    """

    host_key: str
    client_key: str
    username: str

    @classmethod
    def load(cls, image: Path) -> Self | None:
        """Read the record of an image; None where it was not prepared by claw.

        Raises:
            RuntimeFault: it is damaged.
        """
        try:
            found: Any = json.loads((image / RECORD).read_bytes())
            return cls(*(str(found[field.name]) for field in attrs.fields(cls)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RuntimeFault(
                f"{image / RECORD} cannot be read: {error}",
                remedy="prepare the image again: claw image prepare tart --recreate",
            ) from error

    def save(self, image: Path) -> None:
        """Write the record of an image, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        temporary = image / f".{RECORD}-{secrets.token_hex(4)}"
        temporary.write_text(json.dumps(attrs.asdict(self), indent=1) + "\n")
        temporary.replace(image / RECORD)


def key_path() -> Path:
    """Where this user's private key is."""
    return default_state_directory() / "tart" / "id_ed25519"


def public_key() -> str:
    """The public half of this user's key, which is made where there is none; blocks.

    Raises:
        OSError: it cannot be read or written.
    """
    import asyncssh  # a quarter of a second, and only images are prepared with it

    path = key_path()
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = asyncssh.generate_private_key("ssh-ed25519", comment="claw")
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(key.export_private_key())
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(temporary)  # somebody else's is as good, if he was first
        finally:
            temporary.unlink()
    return asyncssh.read_private_key(path).export_public_key().decode().strip()
