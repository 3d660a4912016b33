"""The images of the machine, and those of the registry from which it may pull."""

from __future__ import annotations

import os
import shutil
import time

from simulators.container.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simulators.container.mac import Mac


def full(reference: str) -> str:
    """A reference with registry and tag."""
    name, at, digest = reference.partition("@")
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"docker.io/{name}"
    if not at and ":" not in name.rpartition("/")[2]:
        name += ":latest"
    return name + at + digest


def find(mac: Mac, reference: str) -> dict[str, Any] | None:
    """An image of the machine; None where there is none."""
    images: dict[str, Any] = mac.load("images.json") or {}
    return images.get(full(reference))


def pull(mac: Mac, reference: str) -> dict[str, Any]:
    """Fetch an image from the registry.

    Raises:
        Failure: there is no network, or no such image.
    """
    mac.note({"pull": full(reference)})
    if not mac.knob("online"):
        host = full(reference).partition("/")[0]
        text = (
            f"failed to resolve hostname {'registry-1.docker.io' if host == 'docker.io' else host}"
        )
        raise Failure("internalError", text)
    time.sleep(mac.knob("pull_seconds"))
    image: dict[str, Any] | None = (mac.load("registry.json") or {}).get(full(reference))
    if image is None:
        where = f"https://registry-1.docker.io/v2/{full(reference).partition('/')[2]}"
        text = f"HTTP request to {where} failed with response: 404 Not Found"
        raise Failure("internalError", text)
    with mac.changed("images", {}) as images:
        images[image["name"]] = image
    return image


def fetch(mac: Mac, reference: str) -> dict[str, Any]:
    """An image of the machine, or of the registry: nothing keeps `run` from the network."""
    return find(mac, reference) or pull(mac, reference)


def tag(mac: Mac, source: str, target: str) -> str:
    """Give an image one more name."""
    image = known(mac, source)
    with mac.changed("images", {}) as images:
        images[full(target)] = {**image, "name": full(target)}
    return full(target)


def remove(mac: Mac, reference: str) -> str:
    """Forget a name of an image, and its files with the last one."""
    image = known(mac, reference)
    with mac.changed("images", {}) as images:
        del images[image["name"]]
        if all(one["root"] != image["root"] for one in images.values()):
            shutil.rmtree(image["root"], ignore_errors=True)
    return str(image["name"])


def known(mac: Mac, reference: str) -> dict[str, Any]:
    """An image of the machine.

    Raises:
        Failure: there is none.
    """
    image = find(mac, reference)
    if image is None:
        raise Failure("notFound", f"image not found: {reference}")
    return image


def shown(image: dict[str, Any]) -> dict[str, Any]:
    """The object of `image inspect`."""
    size = image["descriptor"]["size"]
    return {
        "configuration": {
            "creationDate": image["created"],
            "descriptor": image["descriptor"],
            "name": image["name"],
        },
        "id": image["descriptor"]["digest"].partition(":")[2],
        "variants": [
            {
                "config": {
                    "architecture": "arm64",
                    "config": image["config"],
                    "os": "linux",
                    "rootfs": {"diff_ids": [], "type": "layers"},
                },
                "digest": image["descriptor"]["digest"],
                "platform": {"architecture": "arm64", "os": "linux"},
                "size": size,
            }
        ],
    }


def record(name: str, root: str, config: dict[str, Any], digest: str) -> dict[str, Any]:
    """An image as the machine keeps it."""
    return {
        "name": full(name),
        "root": os.path.realpath(root),
        "config": config,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "descriptor": {
            "digest": f"sha256:{digest}",
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "size": 1853,
        },
    }
