"""Messages between `tart exec` and the guest's agent: a letter, a length, and that many bytes.

The real ones are gRPC, which nobody sees who calls `tart exec`.
"""

from __future__ import annotations

import json
import struct
from typing import Any

HEAD = struct.Struct(">cI")
HELLO = b"H"
COMMAND, STDIN = b"C", b"I"
STDOUT, STDERR, EXIT, FAILURE = b"O", b"E", b"X", b"F"
ADDRESS = b"A"


def pack(kind: bytes, data: bytes = b"") -> bytes:
    return HEAD.pack(kind, len(data)) + data


def pack_json(kind: bytes, value: Any) -> bytes:
    return pack(kind, json.dumps(value).encode())


class Reader:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Every message that is whole now, as letter and content."""
        self._buffer += data
        found = []
        while len(self._buffer) >= HEAD.size:
            kind, length = HEAD.unpack_from(self._buffer)
            end = HEAD.size + length
            if len(self._buffer) < end:
                break
            found.append((kind, self._buffer[HEAD.size : end]))
            self._buffer = self._buffer[end:]
        return found
