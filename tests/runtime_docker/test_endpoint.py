"""Where the engine is looked for, and how a wrong place is named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from claw_core.errors import ConfigError
from claw_runtime_docker.endpoint import Endpoint, resolve


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".docker").mkdir()
    return tmp_path


def context(home: Path, name: str, host: str, *, tls: bool = False) -> None:
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = home / ".docker/contexts/meta" / digest
    meta.mkdir(parents=True)
    value = {"Name": name, "Endpoints": {"docker": {"Host": host}}}
    (meta / "meta.json").write_text(json.dumps(value))
    if tls:
        (home / ".docker/contexts/tls" / digest).mkdir(parents=True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("unix:///run/x.sock", "unix:///run/x.sock"),
        ("tcp://127.0.0.1:99", "tcp://127.0.0.1:99"),
        ("tcp://engine.example", "tcp://engine.example:2375"),
        ("tcp://[::1]:99/", "tcp://[::1]:99"),
    ],
)
def test_addresses(text: str, shown: str) -> None:
    assert str(Endpoint.parse(text, "a test")) == shown
    assert Endpoint.parse(shown, "the ledger") == Endpoint.parse(text, "a test")


@pytest.mark.parametrize(
    "text", ["", "x", "unix://relative", "tcp://", "tcp://h:port", "tcp://h/path", "gopher://h"]
)
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is no address of an engine \(a test\)"):
        Endpoint.parse(text, "a test")


@pytest.mark.parametrize("scheme", ["ssh", "npipe", "http", "https", "fd"])
def test_what_is_not_built_is_refused_by_name(scheme: str) -> None:
    with pytest.raises(ConfigError, match=f"{scheme}:// cannot be used yet") as caught:
        Endpoint.parse(f"{scheme}://host", "a test")
    assert caught.value.remedy


def test_the_default_is_the_usual_socket(home: Path) -> None:
    assert str(resolve(None, None, {"HOME": str(home)})) == "unix:///var/run/docker.sock"
    assert str(resolve(None, None, {})) == "unix:///var/run/docker.sock"


def test_the_strongest_source_wins(home: Path) -> None:
    context(home, "configured", "unix:///configured")
    context(home, "variable", "unix:///variable")
    context(home, "setting", "unix:///setting")
    (home / ".docker/config.json").write_text('{"currentContext": "configured"}')
    environment = {"HOME": str(home)}
    assert str(resolve(None, None, environment)) == "unix:///configured"
    environment["DOCKER_CONTEXT"] = "variable"
    assert str(resolve(None, None, environment)) == "unix:///variable"
    environment["DOCKER_HOST"] = "unix:///host"
    assert str(resolve(None, None, environment)) == "unix:///host"
    assert str(resolve(None, "setting", environment)) == "unix:///setting"
    assert str(resolve("unix:///own", None, environment)) == "unix:///own"


def test_docker_config_names_another_directory(home: Path) -> None:
    context(home, "one", "tcp://localhost:1")
    environment = {"DOCKER_CONFIG": str(home / ".docker"), "HOME": "/nonexistent"}
    assert str(resolve(None, "one", environment)) == "tcp://localhost:1"


def test_the_context_default_is_the_default(home: Path) -> None:
    assert str(resolve(None, "default", {"HOME": str(home)})) == "unix:///var/run/docker.sock"


def test_an_unknown_context_is_named_with_its_origin(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"no Docker context 'gone' \(DOCKER_CONTEXT\)"):
        resolve(None, None, {"HOME": str(home), "DOCKER_CONTEXT": "gone"})


def test_tls_is_refused_by_name(home: Path) -> None:
    context(home, "far", "tcp://far:2376", tls=True)
    with pytest.raises(ConfigError, match="'far' uses TLS"):
        resolve(None, "far", {"HOME": str(home)})
    with pytest.raises(ConfigError, match="DOCKER_TLS_VERIFY"):
        resolve(None, None, {"DOCKER_HOST": "tcp://far:2376", "DOCKER_TLS_VERIFY": "1"})


@pytest.mark.parametrize("text", ["{", "\x80"])
def test_a_damaged_configuration_is_an_error(home: Path, text: str) -> None:
    (home / ".docker/config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"cannot read .*config\.json"):
        resolve(None, None, {"HOME": str(home)})
