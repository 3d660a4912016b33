"""Where the engine is: settings, `DOCKER_HOST` and Docker's contexts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import attrs

from claw_core.errors import ConfigError

DEFAULT: Final = "unix:///var/run/docker.sock"
_PORT: Final = 2375


@attrs.frozen
class Endpoint:
    """The address of an engine.

    Attributes:
        scheme: kind of the address.
        address: path of the socket, or name of the machine.
        port: of the machine; 0 for a socket.
        origin: what named this address, for messages.
    """

    scheme: Literal["unix", "tcp"]
    address: str
    port: int = 0
    origin: str = attrs.field(default="the default", eq=False)

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.address}"
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"tcp://{host}:{self.port}"

    @classmethod
    def parse(cls, text: str, origin: str) -> Endpoint:
        """Read an address such as `unix:///run/docker.sock` or `tcp://127.0.0.1:2375`.

        Raises:
            ConfigError: it is no address, or of a kind that is not built.
        """
        scheme, _, rest = text.partition("://")
        if scheme == "unix" and rest.startswith("/"):
            return cls("unix", rest, origin=origin)
        if scheme == "tcp":
            try:
                parts = urlsplit(text)
                if parts.hostname and parts.path in {"", "/"}:
                    return cls("tcp", parts.hostname, parts.port or _PORT, origin)
            except ValueError:
                pass  # a port that is none: told below
        if scheme in {"ssh", "npipe", "http", "https", "fd"}:
            raise ConfigError(
                f"engines at {scheme}:// cannot be used yet ({origin}: {text})",
                remedy="use a unix:// or tcp:// address; a remote socket can be forwarded with "
                "ssh -L /tmp/docker.sock:/var/run/docker.sock HOST",
            )
        raise ConfigError(
            f"{text!r} is no address of an engine ({origin})",
            remedy="write unix:///path/of/the.sock or tcp://HOST:PORT",
        )


def resolve(host: str | None, context: str | None, environment: Mapping[str, str]) -> Endpoint:
    """Find the engine, as the `docker` command does.

    The order: `host`, `context`, `DOCKER_HOST`, `DOCKER_CONTEXT`, the current context of Docker's
    configuration, the default socket.

    Raises:
        ConfigError: the context does not exist, or the address cannot be used.
    """
    if host is not None:
        return _plain(Endpoint.parse(host, "the setting host"), environment)
    home = environment.get("HOME")
    folder = environment.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else None)
    if context is not None:
        return _context(context, "the setting context", folder, environment)
    if address := environment.get("DOCKER_HOST"):
        return _plain(Endpoint.parse(address, "DOCKER_HOST"), environment)
    if name := environment.get("DOCKER_CONTEXT"):
        return _context(name, "DOCKER_CONTEXT", folder, environment)
    configuration = _json(Path(folder) / "config.json") if folder else {}
    current = configuration.get("currentContext")
    if isinstance(current, str) and current:
        return _context(current, f"currentContext of {folder}/config.json", folder, environment)
    return Endpoint.parse(DEFAULT, "the default")


def _context(
    name: str, origin: str, folder: str | None, environment: Mapping[str, str]
) -> Endpoint:
    if name == "default":
        return Endpoint.parse(environment.get("DOCKER_HOST") or DEFAULT, "the default context")
    digest = hashlib.sha256(name.encode()).hexdigest()
    place = Path(folder or "/nonexistent") / "contexts"
    found = _json(place / "meta" / digest / "meta.json")
    docker = found.get("Endpoints", {}).get("docker", {}) if found else {}
    address = docker.get("Host") if isinstance(docker, dict) else None
    if not isinstance(address, str):
        raise ConfigError(
            f"there is no Docker context {name!r} ({origin})",
            remedy="see `docker context ls`, or name the engine with the setting host",
        )
    if (place / "tls" / digest).exists():
        raise ConfigError(
            f"the Docker context {name!r} uses TLS, which is not built yet",
            remedy="use a unix:// address, for instance of a socket forwarded with ssh -L",
        )
    return Endpoint.parse(address, f"context {name}")


def _plain(endpoint: Endpoint, environment: Mapping[str, str]) -> Endpoint:
    if endpoint.scheme == "tcp" and environment.get("DOCKER_TLS_VERIFY"):
        raise ConfigError(
            f"DOCKER_TLS_VERIFY is set, and TLS to {endpoint} is not built yet",
            remedy="use a unix:// address, for instance of a socket forwarded with ssh -L",
        )
    return endpoint


def _json(path: Path) -> dict[str, Any]:
    """Read a file of Docker's configuration; one that is not there is empty.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}", remedy="repair it, or use the setting host"
        ) from error
    return value if isinstance(value, dict) else {}
