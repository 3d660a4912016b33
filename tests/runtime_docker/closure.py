"""Images made of programs of this machine, with the libraries that they need; no registry."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from runtime_docker.engines import busybox_root


def libraries(program: Path) -> set[str]:
    """Paths of the shared libraries of a program, its loader included."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"(/\S+)\s+\(0x", listed))


def image(programs: Iterable[Path], folders: Iterable[Path] = ()) -> bytes:
    """A file tree of busybox, programs at their own places, their libraries, and folders."""
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=buffer, mode="w") as archive,
        tarfile.open(fileobj=io.BytesIO(busybox_root())) as base,
    ):
        for member in base:
            archive.addfile(member, base.extractfile(member) if member.isfile() else None)
        seen: set[str] = set()
        extensions = [path for folder in folders for path in Path(folder).rglob("*.so")]
        needed = set().union(*(libraries(one) for one in [*programs, *extensions]))
        for path in [*map(str, programs), *sorted(needed)]:
            if path not in seen:
                seen.add(path)
                member = archive.gettarinfo(os.path.realpath(path), arcname=path.lstrip("/"))
                member.uid = member.gid = 0
                with open(os.path.realpath(path), "rb") as data:
                    archive.addfile(member, data)
        for folder in folders:
            archive.add(folder, arcname=str(folder).lstrip("/"), filter=_source)
    return buffer.getvalue()


def _source(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    skipped = re.search(r"__pycache__|/(test|idlelib|ensurepip|dist-packages|config-)", member.name)
    return None if skipped or member.islnk() else member
