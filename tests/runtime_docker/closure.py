"""Images made of programs of this machine, with the libraries that they need; no registry."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from runtime_docker.engines import busybox_root


def libraries(program: Path) -> set[str]:
    """Paths of the shared libraries of a program, its loader included."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"(/\S+)\s+\(0x", listed))


def image(programs: Mapping[str, Path], folders: Iterable[Path] = ()) -> bytes:
    """A file tree of busybox, programs under given paths, their libraries, and folders."""
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=buffer, mode="w") as archive,
        tarfile.open(fileobj=io.BytesIO(busybox_root())) as base,
    ):
        for member in base:
            archive.addfile(member, base.extractfile(member) if member.isfile() else None)
        extensions = [path for folder in folders for path in Path(folder).rglob("*.so")]
        needed = set().union(*(libraries(one) for one in [*programs.values(), *extensions]))
        for place, path in {**{one: Path(one) for one in needed}, **programs}.items():
            member = archive.gettarinfo(path.resolve(), arcname=place.lstrip("/"))
            member.uid = member.gid = 0
            with path.open("rb") as data:
                archive.addfile(member, data)
        for folder in folders:
            archive.add(folder, arcname=str(folder).lstrip("/"), filter=_source)
    return buffer.getvalue()


def _source(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    skipped = re.search(r"__pycache__|/(test|idlelib|ensurepip|dist-packages|config-)", member.name)
    return None if skipped or member.islnk() else member
