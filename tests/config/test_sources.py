"""Every file of the configuration: what it may hold, and what is said of what it may not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from claw_core.config import sources
from claw_core.config.files import LIMIT
from claw_core.config.settings import Source
from claw_core.config.sources import Problems
from claw_core.isolation import Isolation
from claw_core.model import Mount

WRONG_TOML = [
    ("runtime = 3", "runtime: expected text, got 3"),
    ('runtime = ""', "runtime: expected text, got an empty one"),
    ('prefer = "local"', 'prefer: expected a list, got "local"'),
    ("fallback = [1]", "fallback[0]: expected text, got 1"),
    ('min_isolation = "hard"', "min_isolation: expected one of none, guard, sandbox"),
    ("min_isolation = 3", "min_isolation: expected one of none, guard, sandbox"),
    ("image = true", "image: expected text, got true"),
    ('network = "host"', 'network: expected one of none, default, got "host"'),
    ("cpus = 0", "cpus: expected a number above zero, got 0"),
    ("cpus = nan", "cpus: expected a number above zero, got NaN"),
    ("cpus = true", "cpus: expected a number, got true"),
    ("memory = 2048", 'memory: expected a size such as "512m" or "2g", got 2048'),
    ('memory = "2q"', 'memory: expected a size such as "512m" or "2g", got "2q"'),
    ("processes = 1.5", "processes: expected a whole number above zero, got 1.5"),
    ("timeout = 600", 'timeout: expected a duration such as "90s" or "10m", got 600'),
    ('idle_timeout = "soon"', "idle_timeout: expected a duration"),
    ("workdir = []", "workdir: expected text, got []"),
    ("agent = {}", "agent: expected text, got {}"),
    ("secrets = [true]", "secrets[0]: expected text, got true"),
    ('mounts = ["/a"]', "mounts[0]: expected SRC:DST[:rw], got '/a'"),
    ('mounts = ["a:/b"]', 'mounts[0]: expected an absolute path or one with ~, got "a"'),
    ('mounts = ["/a:/b/../c"]', "mounts[0]: expected an absolute path without .. as the target"),
    ("env = { A = 1 }", "env.A: expected text, got a number"),
    ('env = { "A=B" = "1" }', "env: 'A=B' cannot be the name of a variable"),
    ('env = { A = "a\\u0000b" }', "env.A: expected text without characters that no program"),
    ('env = { "A\\u001b[2K" = "1" }', "env: 'A\\x1b[2K' cannot be the name of a variable"),
    ('image = "a\\nb"', 'image: expected printable text, got "a\\nb"'),
    ("cpus = 1e300", "cpus: expected a number above zero, got 1e+300"),
    ('"a\\u001b" = 1', "a\\u001b: unknown key; "),
    ("runtimes = 1", "runtimes: expected a table, got 1"),
    ("runtimes.local = 1", "runtimes.local: expected a table, got 1"),
    ("runtimes.local.since = 2020-01-01", "runtimes.local.since: expected text, a number, a flag"),
    ("groups.a = 1", "groups.a: expected a table, got 1"),
    ("groups.a.runtime = 1", "groups.a.runtime: expected text, got 1"),
    ("mount_policy.blocked = 1", "mount_policy.blocked: expected a list, got 1"),
    ('mount_policy.allowed_roots = ["~"]', "mount_policy.allowed_roots[0]: expected a table"),
    (
        'mount_policy.allowed_roots = [{ path = "x" }]',
        "mount_policy.allowed_roots[0].path: expected an absolute path",
    ),
    (
        'mount_policy.allowed_roots = [{ path = "/x", writable = 1 }]',
        "mount_policy.allowed_roots[0].writable: expected true or false, got 1",
    ),
    ("required_observers = 1", "required_observers: expected a list, got 1"),
    ("mim_isolation = 1", "mim_isolation: unknown key; did you mean min_isolation?"),
    ("groups.a.grups = 1", "groups.a.grups: unknown key; "),
    ("= 1", "Invalid statement (at line 1, column 1)"),
]

WRONG_JSON: list[tuple[Any, str]] = [
    ([], "expected a table, got []"),
    ({"containerConfig": 1}, "containerConfig: expected a table, got 1"),
    ({"contanerConfig": {}}, "contanerConfig: unknown key; did you mean containerConfig?"),
    ({"containerConfig": {"runtime": 1}}, "containerConfig.runtime: expected text, got 1"),
    (
        {"containerConfig": {"timeout": "10m"}},
        'containerConfig.timeout: expected milliseconds, got "10m"',
    ),
    (
        {"containerConfig": {"timeout": 10**400}},
        "containerConfig.timeout: expected milliseconds, got 1000",
    ),
    ({"containerConfig": {"timeout": 0}}, "containerConfig.timeout: expected milliseconds, got 0"),
    (
        {"containerConfig": {"timeout": True}},
        "containerConfig.timeout: expected milliseconds, got true",
    ),
    ({"containerConfig": {"env": ["A"]}}, "containerConfig.env: expected a table, got a list"),
    ({"containerConfig": {"env": {"A": 1}}}, "containerConfig.env.A: expected text, got a number"),
    ({"containerConfig": {"secrets": ["A"]}}, "containerConfig.secrets: unknown key"),
    ({"containerConfig": {"image": ""}}, "containerConfig.image: expected text, got an empty one"),
    (
        {"containerConfig": {"additionalMounts": ["/a"]}},
        'containerConfig.additionalMounts[0]: expected a table, got "/a"',
    ),
    (
        {"containerConfig": {"additionalMounts": [{"hostPath": "/a", "mode": "rw"}]}},
        "containerConfig.additionalMounts[0].mode: unknown key",
    ),
    (
        {"containerConfig": {"additionalMounts": [{"hostPath": "a"}]}},
        "containerConfig.additionalMounts[0].hostPath: expected an absolute path or one with ~",
    ),
    (
        {"containerConfig": {"additionalMounts": [{"hostPath": "/a", "containerPath": "../b"}]}},
        "containerConfig.additionalMounts[0].containerPath: expected a relative path without ..",
    ),
    (
        {"containerConfig": {"additionalMounts": [{"hostPath": "/a", "readonly": "no"}]}},
        'containerConfig.additionalMounts[0].readonly: expected true or false, got "no"',
    ),
]


def group_file(path: Path, content: object) -> Source | None:
    (path / "config.json").write_text(json.dumps(content))
    return sources.group_file(path / "config.json", "groups/g/config.json")


@pytest.mark.parametrize(("text", "problem"), WRONG_TOML, ids=lambda value: str(value)[:40])
def test_what_is_wrong_in_claw_toml_is_said(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "claw.toml"
    path.write_text(text)
    with pytest.raises(Problems) as error:
        sources.claw_toml(path)
    (found,) = error.value.problems
    assert found.startswith(f"{path}: {problem}")


@pytest.mark.parametrize(("content", "problem"), WRONG_JSON, ids=lambda value: str(value)[:40])
def test_what_is_wrong_in_a_group_file_is_said(
    content: object, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(Problems) as error:
        group_file(tmp_path, content)
    (found,) = error.value.problems
    assert found.startswith(f"groups/g/config.json: {problem}")


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    lines = [text for text, _ in WRONG_TOML if "." not in text.split("=")[0]]
    mixed = {line.split(" ")[0]: line for line in lines if line[0].isalpha()}
    path = tmp_path / "claw.toml"
    path.write_text("\n".join(mixed.values()))
    with pytest.raises(Problems) as error:
        sources.claw_toml(path)
    assert len(error.value.problems) == len(mixed) > 12


def test_a_value_of_a_variable_is_never_quoted(tmp_path: Path) -> None:
    with pytest.raises(Problems) as error:
        group_file(tmp_path, {"containerConfig": {"env": {"KEY": 8675309}}})
    assert "8675309" not in str(error.value)


@pytest.mark.parametrize("name", ["claw.toml", ".env", "config.json"])
class TestEveryFile:
    """What holds for each of the three files."""

    def read(self, path: Path) -> object:
        if path.name == "claw.toml":
            return sources.claw_toml(path)
        if path.name == ".env":
            return sources.dotenv(path)
        return sources.group_file(path, "config.json")

    def problem(self, path: Path) -> str:
        with pytest.raises(Problems) as error:
            self.read(path)
        (found,) = error.value.problems
        return found

    def test_that_is_not_there_sets_nothing(self, name: str, tmp_path: Path) -> None:
        assert not self.read(tmp_path / name)

    def test_that_is_not_utf8_is_refused(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(b"A = '\xff'")
        assert "it is not UTF-8 (byte 5)" in self.problem(tmp_path / name)

    def test_that_is_huge_is_refused(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(b"#" * (LIMIT + 1))
        assert "it is larger than 1 MB" in self.problem(tmp_path / name)

    def test_that_is_a_directory_is_refused(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).mkdir()
        assert "it is not a regular file" in self.problem(tmp_path / name)

    def test_that_is_a_fifo_is_refused_at_once(self, name: str, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / name)
        assert "it is not a regular file" in self.problem(tmp_path / name)

    def test_that_links_to_nothing_is_refused(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).symlink_to("nowhere")
        assert "symbolic link" in self.problem(tmp_path / name)

    @pytest.mark.skipif(os.geteuid() != 0, reason="another owner needs root")
    def test_of_somebody_else_is_refused_where_it_is_trusted(
        self, name: str, tmp_path: Path
    ) -> None:
        (tmp_path / name).write_text("{}" if name == "config.json" else "")
        os.chown(tmp_path / name, 12345, 12345)
        if name == "config.json":
            self.read(tmp_path / name)
        else:
            assert "it belongs to the user 12345" in self.problem(tmp_path / name)

    def test_that_anybody_can_change_is_refused_where_it_is_trusted(
        self, name: str, tmp_path: Path
    ) -> None:
        (tmp_path / name).write_text("{}" if name == "config.json" else "")
        (tmp_path / name).chmod(0o666)
        if name == "config.json":
            self.read(tmp_path / name)
        else:
            assert "anybody can change it" in self.problem(tmp_path / name)


def test_an_empty_claw_toml_sets_nothing_and_an_empty_group_file_is_no_json(
    tmp_path: Path,
) -> None:
    for name in ("claw.toml", ".env", "config.json"):
        (tmp_path / name).touch()
    document = sources.claw_toml(tmp_path / "claw.toml")
    assert document is not None
    assert list(document.flat()) == []
    assert sources.dotenv(tmp_path / ".env") == {}
    with pytest.raises(Problems, match=r"config\.json: Expecting value"):
        sources.group_file(tmp_path / "config.json", "config.json")


def test_a_group_file_that_is_a_symlink_is_refused_and_not_quoted(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    (tmp_path / "config.json").symlink_to(secret)
    with pytest.raises(Problems) as error:
        sources.group_file(tmp_path / "config.json", "config.json")
    assert "put the file itself there" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_key_that_is_named_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"containerConfig": {"runtime": "tart", "runtime": "local"}}'
    )
    with pytest.raises(Problems, match="names 'runtime' more than once"):
        sources.group_file(tmp_path / "config.json", "config.json")


def test_many_keys_of_which_one_is_named_twice_take_no_time(tmp_path: Path) -> None:
    keys = ",".join(f'"k{number}":1' for number in range(50_000))
    (tmp_path / "config.json").write_text('{"a":1,"a":2,' + keys + "}")
    with pytest.raises(Problems, match="names 'a' more than once"):
        sources.group_file(tmp_path / "config.json", "config.json")


def test_what_is_nested_too_deeply_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(Problems, match="nested too deeply"):
        sources.group_file(tmp_path / "config.json", "config.json")


def test_a_group_file_in_claws_own_words(tmp_path: Path) -> None:
    source = group_file(
        tmp_path,
        {
            "name": "Finance",
            "containerConfig": {
                "runtime": "tart",
                "timeout": 600_000,
                "image": "i",
                "env": {"A": ""},
                "additionalMounts": [
                    {"hostPath": "/data/site"},
                    {"hostPath": "/data/x", "containerPath": "y/z", "readonly": False},
                ],
            },
        },
    )
    assert source is not None
    settings = source.settings
    assert (settings.runtime, settings.timeout, settings.image) == ("tart", 600.0, "i")
    assert settings.env == {"A": ""}
    assert settings.mounts == (
        Mount(Path("/data/site"), "/workspace/extra/site"),
        Mount(Path("/data/x"), "/workspace/extra/y/z", writable=True),
    )
    assert not any(mount.authorised for mount in settings.mounts)
    assert source.origin("timeout") == "groups/g/config.json: containerConfig.timeout"
    assert source.origin("env.A") == "groups/g/config.json: containerConfig.env.A"
    origin = source.origin("mounts./workspace/extra/y/z")
    assert origin == "groups/g/config.json: containerConfig.additionalMounts[1]"


def test_claw_toml_in_values(tmp_path: Path) -> None:
    path = tmp_path / "claw.toml"
    path.write_text(
        'timeout = "1h30m"\nmemory = "2g"\nmin_isolation = "vm"\nmounts = ["/a:/b:rw"]\n'
        "[runtimes.x]\nlist = [1, { a = true }]\nempty = ''\n"
    )
    document = sources.claw_toml(path)
    assert document is not None
    assert (document.timeout, document.memory) == (5400.0, 2 << 30)
    assert document.min_isolation is Isolation.VM
    assert document.mounts == (Mount(Path("/a"), "/b", writable=True),)
    assert document.mounts[0].authorised
    assert document.runtimes == {"x": {"list": [1, {"a": True}], "empty": ""}}


DOTENV = r"""
# comment
PLAIN=value # comment
export EXPORTED='single # no comment'
DOUBLE="two\nlines"
EMPTY=
BARE
SPACED = spaced
EXPAND=${PLAIN}
MULTI="first
second"
"""


def test_dotenv_is_read_without_expansion(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(DOTENV)
    assert sources.dotenv(tmp_path / ".env") == {
        "PLAIN": "value",
        "EXPORTED": "single # no comment",
        "DOUBLE": "two\nlines",
        "EMPTY": "",
        "SPACED": "spaced",
        "EXPAND": "${PLAIN}",
        "MULTI": "first\nsecond",
    }


def test_a_line_of_dotenv_that_is_no_assignment_is_an_error_with_its_number(
    tmp_path: Path,
) -> None:
    (tmp_path / ".env").write_text("A=1\nif true; then\nB='open\n")
    with pytest.raises(Problems) as error:
        sources.dotenv(tmp_path / ".env")
    assert error.value.problems[0] == ".env: line 2: expected NAME=value"


def test_nanoclaws_names_are_understood() -> None:
    source = sources.environment(
        {
            "CONTAINER_RUNTIME": "container",
            "AGENT_RUNTIME": "claude",
            "TART_BASE_IMAGE": "sonoma",
            "TART_VM_USERNAME": "admin",
            "TART_SSH_TIMEOUT": "1500",
            "TART_VM_PASSWORD": "hunter2",
            "OTHER": "x",
        },
        ".env",
    )
    assert source.settings.runtime == "container"
    assert source.settings.agent == "claude"
    assert source.settings.runtimes == {
        "tart": {"image": "sonoma", "username": "admin", "ssh_timeout": 1.5}
    }
    assert source.origin("runtimes.tart.image") == ".env: TART_BASE_IMAGE"
    assert "hunter2" not in repr(source)


@pytest.mark.parametrize("text", ["10m", "-1", "1.5", "9" * 20, "²", "0"])
def test_a_wrong_number_in_the_environment_is_an_error(text: str) -> None:
    with pytest.raises(Problems, match="environment: TART_SSH_TIMEOUT: expected milliseconds"):
        sources.environment({"TART_SSH_TIMEOUT": text}, "environment")


def test_an_empty_variable_sets_nothing() -> None:
    source = sources.environment({"CONTAINER_RUNTIME": "", "TART_SSH_TIMEOUT": ""}, "environment")
    assert list(source.settings.flat()) == []
