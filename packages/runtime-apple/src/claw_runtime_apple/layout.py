"""Writes an image as `container image load` reads it: an archive of one layer and what it means.

The format is the OCI image layout (https://github.com/opencontainers/image-spec, image-layout.md).
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final, Self

import attrs

from claw_core.errors import RuntimeFault

_TYPE: Final = "application/vnd.oci.image"
_END: Final = bytes(2 * tarfile.BLOCKSIZE)
_NAMES: Final = (
    "com.apple.containerization.image.name",
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
)


@attrs.define(eq=False)
class Layout:
    """An archive whose layer is being written. All of its methods block.

    Attributes:
        path: where it is.
    """

    path: Path
    _file: IO[bytes]
    _hash: Any = attrs.field(factory=hashlib.sha256)
    _size: int = 0
    _tail: bytes = b""

    @classmethod
    def begin(cls, path: Path) -> Self:
        """Make the file; the layer comes first, below a name that is not known yet."""
        file = path.open("wb")
        file.write(bytes(tarfile.BLOCKSIZE))
        return cls(path, file)

    def close(self) -> None:
        """Close the file, finished or not."""
        self._file.close()

    def directory(self, path: str, mode: int) -> None:
        """Add a directory to the layer."""
        member = tarfile.TarInfo(path.strip("/"))
        member.type, member.mode = tarfile.DIRTYPE, mode
        self.write(member.tobuf(tarfile.GNU_FORMAT))

    def write(self, data: bytes) -> None:
        """Add to the layer, an archive of the disk."""
        self._file.write(data)
        self._hash.update(data)
        self._size += len(data)
        self._tail = (self._tail + data)[-len(_END) :]

    def finish(self, image: str, like: Mapping[str, Any], comment: str) -> None:
        """Add what the layer means, and close.

        Args:
            image: name of the image.
            like: configuration of an image that it shall start like.
            comment: where it comes from.

        Raises:
            RuntimeFault: the layer is not whole.
        """
        if self._tail != _END:
            raise RuntimeFault("the disk was not packed as a whole", remedy="try again")
        digest = self._hash.hexdigest()
        self._file.write(bytes(-self._size % tarfile.BLOCKSIZE))
        platform = {
            "architecture": like.get("architecture", "arm64"),
            "os": like.get("os", "linux"),
            **({"variant": like["variant"]} if "variant" in like else {}),
        }
        config = {
            **platform,
            "config": like.get("config", {}),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created_by": "claw", "comment": comment}],
        }
        layer = {
            "mediaType": f"{_TYPE}.layer.v1.tar",
            "digest": f"sha256:{digest}",
            "size": self._size,
        }
        manifest = self._blob(
            f"{_TYPE}.manifest.v1+json",
            {
                "schemaVersion": 2,
                "mediaType": f"{_TYPE}.manifest.v1+json",
                "config": self._blob(f"{_TYPE}.config.v1+json", config),
                "layers": [layer],
            },
        )
        index = self._blob(
            f"{_TYPE}.index.v1+json",
            {
                "schemaVersion": 2,
                "mediaType": f"{_TYPE}.index.v1+json",
                "manifests": [{**manifest, "platform": platform}],
            },
        )
        named = {**index, "annotations": dict.fromkeys(_NAMES, image)}
        self._member("index.json", {"schemaVersion": 2, "manifests": [named]})
        self._member("oci-layout", {"imageLayoutVersion": "1.0.0"})
        self._file.write(_END)
        self._file.seek(0)
        self._file.write(_header(f"blobs/sha256/{digest}", self._size))
        self.close()

    def _blob(self, kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Add a document below its own digest, and return what refers to it."""
        data = json.dumps(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        self._member(f"blobs/sha256/{digest}", value)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    def _member(self, name: str, value: Mapping[str, Any]) -> None:
        data = json.dumps(value).encode()
        self._file.write(_header(name, len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE))


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)
