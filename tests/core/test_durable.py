from __future__ import annotations

import os
from pathlib import Path

import pytest

from claw_core import durable, vfs
from claw_core.errors import LedgerUnavailable

MOUNTS = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /home rw,relatime - nfs4 server:/home rw
31 30 254:1 / /home/me/local rw,relatime shared:5 master:2 - xfs /dev/vdb rw
32 22 0:30 / /mnt/with\040space rw,relatime - fuse.sshfs host: rw
33 22 0:31 / /host rw,relatime - virtiofs host rw
34 22 0:32 / /covered rw - cifs //a/b rw
35 34 0:33 / /covered rw - tmpfs tmpfs rw
broken line
"""

MACOS = """/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled, nobrowse, protect)
//me@nas/share on /Volumes/My (old) share (smbfs, nodev, nosuid, mounted by me)
nas:/export on /Volumes/export (nfs)
sshfs on /Volumes/fuse (macfuse, local, synchronous)
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib", None),
        ("/", None),
        ("/home", "nfs4"),
        ("/home/me", "nfs4"),
        ("/homeless", None),
        ("/home/me/local/state", None),
        ("/mnt/with space/claw", "fuse.sshfs"),
        ("/host/x", "virtiofs"),
        ("/covered/x", None),
    ],
)
def test_the_mount_that_holds_a_path_decides_on_linux(path: str, kind: str | None) -> None:
    assert durable.shared_on_linux(MOUNTS, path) == kind


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/Users/me", None),
        ("/System/Volumes/Data/x", None),
        ("/Volumes/My (old) share/x", "smbfs"),
        ("/Volumes/export/x", "nfs"),
        ("/Volumes/fuse/x", "macfuse"),
    ],
)
def test_only_local_volumes_are_accepted_on_macos(path: str, kind: str | None) -> None:
    assert durable.shared_on_macos(MACOS, path) == kind


def test_a_symlink_onto_a_shared_filesystem_is_seen_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "share"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    mounts = f"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / {real} rw - 9p x rw\n"
    read_text = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda self, **o: mounts if str(self).endswith("mountinfo") else read_text(self, **o),
    )
    with pytest.raises(LedgerUnavailable, match="9p") as caught:
        durable.refuse_shared_filesystem(tmp_path / "link" / "state")
    assert caught.value.remedy is not None
    durable.refuse_shared_filesystem(tmp_path)


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.write_file(path, b"one")
    durable.write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        durable.write_file(tmp_path / "directory", b"")
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]


def test_reserved_space_reads_as_nul(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        file.write(b"abc")
        durable.preallocate(file.fileno(), 64)
        durable.sync_data(file.fileno())
    assert (tmp_path / "file").read_bytes().rstrip(b"\0") == b"abc"


def test_clocks_do_not_run_backwards() -> None:
    assert vfs.boot_id() == vfs.boot_id() != ""
    before = vfs.boottime(), vfs.awake_time()
    assert vfs.boottime() >= before[0]
    assert vfs.awake_time() >= before[1]
