"""The whole configuration: where it is read from, and what its groups are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from claw_core.config.config import Config, default_path
from claw_core.config.settings import Settings, Source
from claw_core.errors import ConfigProblems

ASKED = Source(Settings(), "asked for")


def names() -> tuple[str, ...]:
    return ("local",)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for group in ("finance", "personal", "global"):
        (tmp_path / "groups" / group).mkdir(parents=True)
    return tmp_path


def config_file(root: Path, group: str, content: object) -> Path:
    path = root / "groups" / group / "config.json"
    path.write_text(json.dumps(content))
    return path


def runtime(config: Config, group: str | None) -> tuple[str | None, str]:
    merged = config.merged(ASKED, config.group(group) if group else None, names)
    return merged.settings.runtime, merged.origin("runtime")


def test_the_order_of_the_sources(root: Path) -> None:
    toml = root / "elsewhere.toml"
    (root / ".env").write_text("CONTAINER_RUNTIME=container\n")
    environ: dict[str, str] = {}

    def chosen(group: str | None = "finance") -> tuple[str | None, str]:
        return runtime(Config.load(path=None, root=root, environ=environ), group)

    environ["XDG_CONFIG_HOME"] = str(root / "no")
    assert chosen() == ("container", ".env: CONTAINER_RUNTIME")
    environ["CONTAINER_RUNTIME"] = "docker"
    assert chosen() == ("docker", "environment: CONTAINER_RUNTIME")
    environ["CLAW_CONFIG"] = str(toml)
    toml.write_text('runtime = "tart"\n')
    assert chosen() == ("tart", f"{toml}: runtime")
    config_file(root, "finance", {"containerConfig": {"runtime": "apple"}})
    assert chosen() == ("apple", "groups/finance/config.json: containerConfig.runtime")
    assert chosen("personal") == ("tart", f"{toml}: runtime")
    toml.write_text('runtime = "tart"\n[groups.finance]\nruntime = "local"\n')
    assert chosen() == ("local", f"{toml}: groups.finance.runtime")
    assert chosen(None) == ("tart", f"{toml}: runtime")
    config = Config.load(root=root, environ=environ)
    asked = Source(Settings(runtime="docker"), "asked for")
    assert config.merged(asked, config.group("finance"), names).settings.runtime == "docker"


def test_claw_toml_is_never_read_from_the_working_directory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "claw.toml").write_text('runtime = "docker"\n')
    monkeypatch.chdir(root)
    assert runtime(Config.load(environ={"HOME": str(root)}), None) == (None, "default")


def test_where_the_files_are_by_default(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_path({}) == Path("/home/somebody/.config/claw/claw.toml")
    assert default_path({"XDG_CONFIG_HOME": "/c"}) == Path("/c/claw/claw.toml")
    monkeypatch.chdir(root)
    assert Config.load(environ={}).root is None
    assert Config.load(environ={"CLAW_ROOT": "/elsewhere"}).root == Path("/elsewhere")


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    named = Config.load(path=tmp_path / "no.toml", root=tmp_path, environ={})
    chosen = Config.load(root=tmp_path, environ={"CLAW_CONFIG": str(tmp_path / "no.toml")})
    for config in (named, chosen):
        assert config.problems == (f"{tmp_path / 'no.toml'}: there is no such file",)


def test_the_problems_of_all_files_are_said_together(root: Path) -> None:
    (root / "claw.toml").write_text("runtime = 1\ncpus = 'x'\n")
    (root / ".env").write_text("not an assignment\n")
    config_file(root, "finance", {"containerConfig": {"timeout": "10m"}})
    environ = {"TART_SSH_TIMEOUT": "soon"}
    config = Config.load(path=root / "claw.toml", root=root, environ=environ)
    with pytest.raises(ConfigProblems) as error:
        config.group("finance")
    assert len(error.value.problems) == 5
    assert "5 problems in the configuration" in str(error.value)
    assert error.value.exit_code == 2
    with pytest.raises(ConfigProblems):
        config.merged(ASKED, None, names)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../finance", "a/b", "a\nb", "-a", "a" * 65, "global", "a\0b", "é"]
)
def test_a_name_that_cannot_be_a_group(name: str, root: Path) -> None:
    with pytest.raises(ConfigProblems, match="cannot be a group"):
        Config.load(root=root, environ={}).group(name)


def test_a_group_that_is_not_there(root: Path) -> None:
    config = Config.load(root=root, environ={})
    with pytest.raises(ConfigProblems, match="groups there: finance, personal"):
        config.group("fiance")
    assert config.group_names() == ("finance", "personal")


def test_a_group_folder_that_is_a_symlink_is_refused(root: Path, tmp_path: Path) -> None:
    (root / "groups" / "linked").symlink_to("/etc")
    with pytest.raises(ConfigProblems, match="is a symbolic link"):
        Config.load(root=root, environ={}).group("linked")


def test_a_group_that_has_only_a_table_is_named_and_not_there(root: Path) -> None:
    (root / "claw.toml").write_text('[groups.other]\nruntime = "local"\n')
    config = Config.load(path=root / "claw.toml", root=root, environ={})
    assert "other" in config.group_names()
    with pytest.raises(
        ConfigProblems, match=r"there is no group 'other' in .*: finance, personal\n"
    ):
        config.group("other")


def test_a_slip_in_the_name_of_a_table_is_no_way_to_lose_a_floor(root: Path) -> None:
    (root / "claw.toml").write_text('[groups.finanse]\nmin_isolation = "vm"\n')
    config = Config.load(path=root / "claw.toml", root=root, environ={})
    with pytest.raises(ConfigProblems, match=r"groups\.finanse: .* is finance meant\?"):
        config.group("finance")
    config.group("personal")


def test_a_table_for_what_cannot_be_a_group_is_a_problem(root: Path) -> None:
    (root / "claw.toml").write_text('[groups.global]\n[groups."../x"]\n')
    config = Config.load(path=root / "claw.toml", root=root, environ={})
    assert len(config.problems) == 2


def test_a_table_for_a_runtime_that_nobody_knows_is_a_problem(root: Path) -> None:
    (root / "claw.toml").write_text('[runtimes.locl]\nengine = "guard"\n')
    config = Config.load(path=root / "claw.toml", root=root, environ={})
    with pytest.raises(ConfigProblems, match=r"runtimes\.locl\.engine: unknown runtime 'locl'"):
        config.merged(ASKED, None, names)


def test_a_dotenv_of_no_root_decides_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / ".env").write_text("CONTAINER_RUNTIME=local\nthis is no assignment\n")
    monkeypatch.chdir(root)
    config = Config.load(environ={})
    assert config.problems == ()
    assert runtime(config, None) == (None, "default")


def test_a_root_that_is_a_loop_of_links_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigProblems, match="there is no group 'g'"):
        Config.load(root=tmp_path / "loop", environ={}).group("g")


def test_a_change_of_a_groups_file_is_seen_whatever_its_times_say(root: Path) -> None:
    path = config_file(root, "finance", {"containerConfig": {"image": "one"}})
    config = Config.load(root=root, environ={})
    assert config.group("finance").merged.settings.image == "one"
    known = config.known_group("finance")
    assert known is config.known_group("finance")
    times = path.stat()
    config_file(root, "finance", {"containerConfig": {"image": "two"}})
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert config.known_group("finance") is None
    assert config.group("finance").merged.settings.image == "two"
    path.unlink()
    assert config.known_group("finance") is None
    assert config.group("finance").file is None


@pytest.mark.parametrize("key", ["runtime", "prefer", "fallback"])
def test_a_runtime_that_nobody_knows_is_a_problem_with_its_place(key: str, root: Path) -> None:
    value = '"dokcer"' if key == "runtime" else '["local", "dokcer"]'
    (root / "claw.toml").write_text(f"{key} = {value}\n")
    config = Config.load(path=root / "claw.toml", root=root, environ={})
    with pytest.raises(ConfigProblems, match=f"claw.toml: {key}: unknown runtime 'dokcer'"):
        config.merged(ASKED, None, names)


@pytest.mark.parametrize("name", ["apple", "container", "docker", "tart", "local", "auto"])
def test_a_runtime_of_this_project_is_known_also_where_it_is_not_installed(
    name: str, root: Path
) -> None:
    config = Config.load(root=root, environ={"CONTAINER_RUNTIME": name})
    assert config.merged(ASKED, None, names).settings.runtime == name


def test_a_floor_that_the_named_runtime_can_never_reach_is_a_problem(root: Path) -> None:
    (root / "claw.toml").write_text('min_isolation = "vm"\n[groups.finance]\nruntime = "local"\n')
    config = Config.load(path=root / "claw.toml", root=root, environ={})
    assert config.merged(ASKED, None, names).settings.min_isolation
    with pytest.raises(ConfigProblems) as error:
        config.merged(ASKED, config.group("finance"), names)
    assert "the floor 'vm' contradicts the runtime 'local'" in str(error.value)
    assert "claw.toml: min_isolation" in str(error.value)
    assert "claw.toml: groups.finance.runtime" in str(error.value)


def test_the_environment_is_stronger_than_dotenv_for_secrets(root: Path) -> None:
    (root / ".env").write_text("A=file\nB=file\n")
    config = Config.load(root=root, environ={"A": "stronger"})
    assert config.secrets == {"A": "stronger", "B": "file"}
    assert "stronger" not in repr(config)


def test_without_files_a_group_is_a_label() -> None:
    config = Config.of(Settings(runtime="local"), "program")
    assert runtime(config, "whatever/it is") == ("local", "program: runtime")
