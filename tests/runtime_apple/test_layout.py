"""An image is written so that it can be loaded, or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from claw_core.errors import RuntimeFault
from claw_core.model import Audit, Image
from claw_runtime_apple.images import name_of, whole_name
from claw_runtime_apple.layout import Layout

INSTANCE = "claw-01234567-0123456789ab"


def layer(size: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("etc/file")
        member.size = size
        archive.addfile(member, io.BytesIO(b"x" * size))
    return buffer.getvalue()


def test_all_that_it_refers_to_is_there(tmp_path: Path) -> None:
    layout = Layout.begin(tmp_path / "image.tar")
    layout.directory("/tmp", 0o1777)
    data = layer(1000)
    layout.write(data[:300])
    layout.write(data[300:])
    like = {"architecture": "arm64", "os": "linux", "variant": "v8", "config": {"Cmd": ["sh"]}}
    layout.finish("docker.io/library/made:1", like, "from somewhere")
    with tarfile.open(tmp_path / "image.tar") as archive:
        found = {}
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = file.read()

    def blob(descriptor: dict[str, Any]) -> bytes:
        content = found["blobs/" + descriptor["digest"].replace(":", "/")]
        assert descriptor["digest"] == "sha256:" + hashlib.sha256(content).hexdigest()
        assert descriptor["size"] == len(content)
        return content

    (named,) = json.loads(found["index.json"])["manifests"]
    assert set(named["annotations"].values()) == {"docker.io/library/made:1"}
    (described,) = json.loads(blob(named))["manifests"]
    assert described["platform"] == {"architecture": "arm64", "os": "linux", "variant": "v8"}
    manifest = json.loads(blob(described))
    config = json.loads(blob(manifest["config"]))
    assert config["config"] == {"Cmd": ["sh"]}
    (described,) = manifest["layers"]
    content = blob(described)
    assert config["rootfs"]["diff_ids"] == [described["digest"]]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert [(one.name, one.mode) for one in archive] == [("tmp", 0o1777), ("etc/file", 0o644)]
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}


@pytest.mark.parametrize("left", [0, 1, 511, 700])
def test_a_layer_that_was_cut_off_is_no_image(tmp_path: Path, left: int) -> None:
    layout = Layout.begin(tmp_path / "image.tar")
    layout.write(layer(100).rstrip(b"\0")[: left or None])
    with pytest.raises(RuntimeFault, match="not packed as a whole"):
        layout.finish("x:1", {}, "")
    layout.close()


def test_names() -> None:
    assert name_of(INSTANCE, Image("made")) == "made:latest"
    assert name_of(INSTANCE, Image("host:5000/made")) == "host:5000/made:latest"
    assert name_of(INSTANCE, Image("made:2")) == "made:2"
    assert name_of(INSTANCE, Audit("a / b")) == "claw-audit:a-b-01234567-0123456789ab"
    assert name_of(INSTANCE, Audit("//")) == "claw-audit:audit-01234567-0123456789ab"
    assert whole_name("made:1") == "docker.io/library/made:1"
    assert whole_name("me/made:1") == "docker.io/me/made:1"
    assert whole_name("example.org/made:1") == "example.org/made:1"
    assert whole_name("localhost/made:1") == "localhost/made:1"
