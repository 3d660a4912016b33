"""Images as archives of the OCI layout: what `image load` takes and `image save` gives."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import uuid

from simulators.container import images
from simulators.container.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simulators.container.mac import Mac

_NAMES = (
    "com.apple.containerization.image.name",
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
)
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_LAYERS = (_LAYER, f"{_LAYER}+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip")


def load(mac: Mac, archive: str) -> list[str]:
    """Take the images of an archive, and return their names.

    Raises:
        Failure: it is none, or a part of it is not what its digest says.
    """
    try:
        with tarfile.open(archive) as tar:
            files = {member.name.removeprefix("./"): member for member in tar if member.isfile()}
            if not {"oci-layout", "index.json"} <= set(files):
                raise Failure("invalidArgument", "the archive has no OCI layout")
            return _load(mac, tar, files)
    except (tarfile.TarError, OSError, ValueError, KeyError) as error:
        text = f"failed to load {archive}: {error!r}"
        raise Failure("invalidArgument", text) from None


def _load(mac: Mac, tar: tarfile.TarFile, files: dict[str, tarfile.TarInfo]) -> list[str]:
    def blob(descriptor: dict[str, Any]) -> bytes:
        algorithm, _, digest = descriptor["digest"].partition(":")
        data = _read(tar, files[f"blobs/{algorithm}/{digest}"])
        if hashlib.sha256(data).hexdigest() != digest or len(data) != descriptor["size"]:
            raise Failure("invalidArgument", f"digest mismatch: {descriptor['digest']}")
        return data

    names = []
    for root in json.loads(_read(tar, files["index.json"]))["manifests"]:
        name = next(root["annotations"][key] for key in _NAMES if key in root["annotations"])
        manifest = json.loads(blob(root))
        if manifest.get("mediaType", root["mediaType"]) == _INDEX:
            manifest = json.loads(blob(manifest["manifests"][0]))
        config = json.loads(blob(manifest["config"]))
        if (config["os"], config["architecture"]) != ("linux", "arm64"):
            raise Failure("unsupported", f"{name} is not for linux/arm64")
        if len(config["rootfs"]["diff_ids"]) != len(manifest["layers"]):
            raise Failure("invalidArgument", f"{name} has another number of layers than it says")
        place = mac.path("images", uuid.uuid4().hex)
        os.mkdir(place)
        for layer in manifest["layers"]:
            if layer["mediaType"] not in _LAYERS:
                raise Failure("unsupported", f"unknown media type {layer['mediaType']}")
            _unpack(blob(layer), place)
        digest = root["digest"].partition(":")[2]
        record = images.record(name, place, config.get("config", {}), digest)
        with mac.changed("images", {}) as known:
            known[record["name"]] = record
        names.append(record["name"])
    return names


def save(mac: Mac, references: list[str], archive: str) -> None:
    """Write images to an archive.

    Raises:
        Failure: one is not there.
    """
    with tarfile.open(archive, "w") as tar:
        roots = []
        for reference in references:
            image = images.known(mac, reference)
            layer = io.BytesIO()
            with tarfile.open(fileobj=layer, mode="w") as files:
                files.add(image["root"], ".")
            data = layer.getvalue()
            diff = f"sha256:{hashlib.sha256(data).hexdigest()}"
            config = {
                "architecture": "arm64",
                "config": image["config"],
                "os": "linux",
                "rootfs": {"diff_ids": [diff], "type": "layers"},
            }
            manifest = {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _put(tar, _json(config), "application/vnd.oci.image.config.v1+json"),
                "layers": [_put(tar, data, _LAYER)],
            }
            root = _put(tar, _json(manifest), _MANIFEST)
            roots.append({**root, "annotations": dict.fromkeys(_NAMES, image["name"])})
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": roots}
        _write(tar, "index.json", _json(index))
        _write(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))


def _unpack(data: bytes, place: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            name = os.path.basename(member.name)
            if name.startswith(".wh."):
                raise Failure("unsupported", "layers that remove files are not simulated")
            member.name = member.name.lstrip("/")
            if member.linkname and member.islnk():
                member.linkname = member.linkname.lstrip("/")
            if member.name:
                tar.extract(member, place, numeric_owner=True, filter="tar")


def _put(tar: tarfile.TarFile, data: bytes, kind: str) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    _write(tar, f"blobs/sha256/{digest}", data)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}


def _write(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
