"""The directories of a container whose disk may be kept: they lie there, and not in memory."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator, Sequence

from claw_core.model import Spec
from claw_runtime_docker.container import OWN_PLACES
from claw_runtime_docker.engine import Engine
from claw_runtime_docker.settings import Settings


async def furnish(engine: Engine, name: str, spec: Spec, settings: Settings) -> None:
    """Make the places of a container that was created and not started, but for those mounted.

    Raises:
        EngineError: it was refused.
    """
    mounted = {mount.target.rstrip("/") for mount in spec.mounts}
    archive = _directories([one for one in OWN_PLACES if one not in mounted], settings.identity)
    await engine.call("PUT", f"/containers/{name}/archive", {"path": "/"}, _once(archive))


def _directories(paths: Sequence[str], identity: str) -> bytes:
    """A tar archive of directories of a user, below others of root."""
    uid, _, gid = identity.partition(":")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in paths:
            parent, _, _ = path.strip("/").rpartition("/")
            if parent:
                archive.addfile(_directory(parent, 0, 0))
            archive.addfile(_directory(path.strip("/"), int(uid), int(gid)))
    return buffer.getvalue()


def _directory(name: str, uid: int, gid: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o755
    member.uid, member.gid = uid, gid
    return member


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
