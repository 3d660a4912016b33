"""The reference of the configuration is what the code says, and the example file is complete."""

from __future__ import annotations

import tomllib
from pathlib import Path

import attrs

from claw_core.config import reference, sources
from claw_core.config.documents import ClawToml, MountPolicyTable
from claw_core.config.settings import Duration, Retention, Settings
from claw_core.mounts import BLOCKED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/configuration.md").read_text()
EXAMPLE = ROOT / "docs/reference/claw.toml"


def test_the_table_is_generated() -> None:
    assert "\n".join(reference.table()) in PAGE


def test_the_example_is_generated_and_loads() -> None:
    assert EXAMPLE.read_text() == "\n".join(reference.example()) + "\n"
    document = sources.claw_toml(EXAMPLE)
    assert document is not None
    assert document.timeout == Duration(1800)
    assert document.groups["finance"].runtime == "tart"


def test_the_example_sets_everything() -> None:
    written = tomllib.loads(EXAMPLE.read_text())
    assert set(written) == {field.name for field in attrs.fields(ClawToml)}
    assert set(written["mount_policy"]) == {field.name for field in attrs.fields(MountPolicyTable)}
    assert set(written["snapshots"]) == {field.name for field in attrs.fields(Retention)}


def test_every_setting_has_a_help_and_an_example_of_its_own() -> None:
    for field in attrs.fields(Settings):
        assert field.metadata["help"]
        assert field.metadata["example"]


def test_every_environment_name_is_described() -> None:
    names = [*sources.ENVIRONMENT, *sum(sources.RUNTIME_SECRETS.values(), ())]
    for name in names:
        assert f"| `{name}` |" in PAGE
    for key in sources.ENVIRONMENT.values():
        assert f"`{key}`" in PAGE


def test_the_blocked_names_that_the_page_lists_are_blocked() -> None:
    for name in (".ssh", ".env", "credentials"):
        assert name in BLOCKED
        assert f"`{name}`" in PAGE
