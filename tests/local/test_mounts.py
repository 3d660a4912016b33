"""Mounts in a tree of one's own: where they may be, whose files are whose, what stays read-only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from local.callers import Caller


@pytest.mark.parametrize(
    "target", ["/", "//", "/proc", "/proc/self", "/proc/sys", "/dev", "/dev/null", "/./dev/tty"]
)
def test_what_holds_the_sandbox_together_cannot_be_covered(user: Caller, target: str) -> None:
    result = user.attempt("namespaces", "print(1)", mounts=[[str(user.project), target, True]])
    assert result["level"] == "refused", result
    assert "the sandbox needs that place" in result["answers"][0][1]


@pytest.mark.parametrize("target", ["/usr/lib/not-there", "/bin/sub/dir", "/etc/passwd/x"])
def test_a_place_that_cannot_be_made_is_refused(caller: Caller, target: str) -> None:
    result = caller.attempt("namespaces", "print(1)", mounts=[[str(caller.project), target, True]])
    assert result["level"] == "refused", result
    assert "no such place" in result["answers"][0][1]


def test_directories_and_files_are_seen_where_they_were_asked_for(caller: Caller) -> None:
    file = caller.write("file", "one", 0o644)
    other = caller.write("other", "two", 0o644)
    project = str(caller.project)
    answers = caller.tried(
        "namespaces",
        "open('/etc/passwd').read()",
        "open('/home/agent/deep/er/file').read()",
        "sorted(os.listdir('/workspace'))",
        "open('/mnt/x').read()",
        "open('/mnt/x', 'w')",
        "open('/home/agent/w', 'w').write('three')",
        "open('/dev/shm/p/file').read()",
        mounts=[
            [str(file), "/etc/passwd", False],
            [str(file), "/home/agent/deep/er/file", False],
            [str(file.parent.parent / "home"), "/workspace", True],
            [project, "/workspace", False],
            [str(file), "/mnt/x", False],
            [str(other), "/home/agent/w", True],
            [project, "/dev/shm/p", False],
        ],
    )
    assert answers[:4] == ["'one'", "'one'", "['file', 'other']", "'one'"]
    assert "REFUSED" in answers[4]
    assert answers[5:] == ["5", "'one'"]
    assert other.read_text() == "three"


def test_read_only_stays_read_only_inside_writable(caller: Caller) -> None:
    caller.write("git/config", "one", 0o644)
    project = str(caller.project)
    answers = caller.tried(
        "namespaces",
        "open('/w/new', 'w').write('x')",
        "open('/w/git/config', 'w')",
        "os.unlink('/w/git/config')",
        "os.chmod('/w/git/config', 0o666)",
        "os.utime('/w/git/config')",
        "os.rename('/w/git', '/w/git2')",
        "os.rmdir('/w/git')",
        "os.setxattr('/w/git/config', 'user.x', b'x')",
        mounts=[[project, "/w", True], [project + "/git", "/w/git", False]],
    )
    assert answers[0] == "1"
    assert all("REFUSED" in answer for answer in answers[1:]), answers


@pytest.mark.parametrize("owner", [0, 1000, 4711])
def test_what_root_lets_write_stays_the_owners(root: Caller, owner: int) -> None:
    place = root.project / "owned"
    place.mkdir(mode=0o700)
    secret = place / "secret"
    secret.write_text("readable")
    secret.chmod(0o600)
    for path in (place, secret):
        os.chown(path, owner, owner)
    answers = root.tried(
        "namespaces",
        "open('/w/secret').read()",
        "open('/w/new', 'w').write('x')",
        "os.mkdir('/w/folder')",
        "os.stat('/w/secret').st_uid == os.getuid()",
        "open('/r/secret').read()",
        "open('/r/new', 'w')",
        mounts=[[str(place), "/w", True], [str(place), "/r", False]],
    )
    assert answers[:5] == ["'readable'", "1", "None", "True", "'readable'"]
    assert "REFUSED" in answers[5]
    for name in ("new", "folder"):
        status = (place / name).lstat()
        assert (status.st_uid, status.st_gid) == (owner, owner)


def test_an_ordinary_user_gains_nothing_by_mounting_what_is_not_theirs(user: Caller) -> None:
    answers = user.tried(
        "namespaces",
        "open('/w/hostname', 'a')",
        "open('/w/shadow').read()",
        "os.mkdir('/w/x')",
        mounts=[["/etc", "/w", True]],
    )
    assert all("REFUSED" in answer for answer in answers), answers


SET_ID = """
import tarfile, io
w = sys.argv[1] if len(sys.argv) > 1 else os.environ["W"]
os.chdir(w)
open("f", "w").close()
os.umask(0)
for line in [
    "os.chmod('f', 0o4755)", "os.fchmod(os.open('f', os.O_RDONLY), 0o2755)",
    "call(268, -100, b'f', 0o6755)", "call(452, -100, b'f', 0o4755, 0)",
    "os.open('g', os.O_CREAT | os.O_WRONLY, 0o4755)", "call(85, b'g', 0o4755)",
    "call(2, b'g', os.O_CREAT | os.O_WRONLY, 0o4755)", "os.mknod('g', stat.S_IFREG | 0o4755)",
    "call(133, b'g', stat.S_IFREG | 0o6755, 0)", "os.open('.', 0o20200000 | os.O_RDWR, 0o4755)",
    "call(437, -100, b'g', struct.pack('QQQ', os.O_CREAT | os.O_WRONLY, 0o4755, 0), 24)",
    "os.mkdir('d', 0o2777) or os.stat('d').st_mode & 0o6000 or 1 / 0",
    "os.setxattr('f', 'security.capability', bytes.fromhex('0100000200200000') + bytes(12))",
    "os.link('/usr/bin/su', 'su')", "os.rename('/usr/bin/su', 'su')",
    "os.chown('f', 0, 0)", "os.mknod('n', stat.S_IFBLK | 0o666, os.makedev(254, 0))",
    "subprocess.run(['install', '-m', '4755', '/usr/bin/id', 'id'], check=True)",
]:
    attempt(line)
info = tarfile.TarInfo("t")
info.mode = 0o4755
data = io.BytesIO()
with tarfile.open(fileobj=data, mode="w") as archive: archive.addfile(info)
subprocess.run(["cp", "--preserve=all", "/usr/bin/su", "su"])
subprocess.run(["tar", "-x", "-p", "-f", "-"], input=data.getvalue(), stderr=subprocess.DEVNULL)
"""


def test_no_way_leaves_a_set_id_file_in_a_mount(caller: Caller, engine: str) -> None:
    project = str(caller.project)
    result = caller.attempt(engine, SET_ID, mounts=[[project, project, True]], env={"W": project})
    ((code, said),) = result["answers"]
    assert code == 0, said
    lines = [line for line in said.splitlines() if line.startswith("@")]
    assert len(lines) == 18, said
    assert all("REFUSED" in line for line in lines), said
    for path in Path(project).rglob("*"):
        assert path.lstat().st_mode & 0o6000 == 0, path
        assert path.is_file() or path.is_dir()
        if path.is_file():
            assert "security.capability" not in os.listxattr(path)
