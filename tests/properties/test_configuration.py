"""No text of a configuration crashes claw: it is settings, or a list of problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claw_core.config import sources
from claw_core.config.config import Config
from claw_core.config.documents import ClawToml, ContainerConfig
from claw_core.config.settings import Settings, Source
from claw_core.errors import ConfigProblems

NAMES = ["claw.toml", ".env", "config.json"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=8)
    | st.sampled_from(["local", "10m", "2g", "vm", "/a:/b:rw", "~/x", "none", "..", "\0"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
TOML_KEYS = [field.name for field in attrs.fields(ClawToml)]
JSON_KEYS = [field.alias for field in attrs.fields(ContainerConfig)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("configuration")
    (place / "groups/g").mkdir(parents=True)
    return place


def whole(place: Path) -> None:
    """Load everything and use it, as `claw explain g` does."""
    config = Config.load(path=place / "claw.toml", root=place, environ={})
    try:
        config.merged(Source(Settings(), "asked for"), config.group("g"), lambda: ("local",))
    except ConfigProblems as error:
        assert error.problems
        assert all(problem.strip() for problem in error.problems)


def path_of(place: Path, name: str) -> Path:
    return place / "groups/g/config.json" if name == "config.json" else place / name


@given(st.sampled_from(NAMES), st.binary(max_size=200))
def test_no_bytes_crash(place: Path, name: str, data: bytes) -> None:
    path = path_of(place, name)
    path.write_bytes(data)
    try:
        whole(place)
    finally:
        path.write_bytes(b"{}" if name == "config.json" else b"")


@given(st.dictionaries(st.sampled_from(JSON_KEYS) | st.text(), VALUES))
def test_no_json_crashes(place: Path, content: dict[str, Any]) -> None:
    path = path_of(place, "config.json")
    path.write_text(json.dumps({"containerConfig": content}))
    try:
        whole(place)
    finally:
        path.write_text("{}")


@given(st.dictionaries(st.sampled_from(TOML_KEYS) | st.text(), VALUES))
def test_no_table_crashes(content: dict[str, Any]) -> None:
    from claw_core.config.parsers import Wrongs
    from claw_core.config.structure import structure

    try:
        document = structure(content, ClawToml)
    except Wrongs as error:
        assert error.problems
        return
    assert dict(document.flat()) is not None
    assert set(content) <= set(TOML_KEYS)


@given(st.text(max_size=200))
def test_dotenv_never_expands_or_crashes(place: Path, text: str) -> None:
    path = path_of(place, ".env")
    path.write_text(text, errors="surrogatepass")
    try:
        values = sources.dotenv(path)
    except sources.Problems as error:
        assert all(problem.startswith(".env: ") for problem in error.problems)
        return
    finally:
        path.unlink()
    assert all("\0" not in key + value for key, value in values.items())
