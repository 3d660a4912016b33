"""The command lines and templates of `docker` that the shim reads, and those that it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from claw_core.errors import ConfigError
from claw_core.model import Mount, Resources
from claw_nanoclaw.shim import answers, arguments, layout
from claw_nanoclaw.shim.answers import Container
from claw_nanoclaw.shim.records import Record
from claw_nanoclaw.shim.templates import render
from nanoclaw_shim import recordings

ROW: dict[str, Any] = {
    "Names": "nanoclaw-a-1",
    "State": {"Status": "running", "ExitCode": 0, "Running": True},
    "Config": {"Labels": {"a.b": "c d"}},
    "_labels": {"a.b": "c d"},
}


def test_every_way_to_write_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "m")
    monkeypatch.delenv("NOBODYS", raising=False)
    asked = arguments.run(
        [
            "-i", "--rm=true", "--init", "--name=n", "-eA=1", "-e", "B=x=y", "--env=C",
            "-e", "MINE",
            "-e", "NOBODYS", "-l", "p=q", "--label=bare", "-v/a:/b:ro", "-v", "/c:/d", "-u=7:8",
            "--mount", "type=bind,source=/e,target=/f,readonly", "--mount=type=bind,src=/g,dst=/h",
            "--add-host", "a:1.2.3.4", "--network", "none", "--cpus=1.5", "-m", "1g",
            "--pids-limit", "9", "--cap-drop=ALL", "--security-opt=no-new-privileges:true",
            "--entrypoint", "bash", "image:1", "-c", "--rm", "-v",
        ]
    )  # fmt: skip
    assert (asked.name, asked.image, asked.entrypoint) == ("n", "image:1", "bash")
    assert asked.argv == ("-c", "--rm", "-v")
    assert asked.env == {"A": "1", "B": "x=y", "MINE": "m"}
    assert asked.labels == {"p": "q", "bare": ""}
    shown = [(str(mount.source), mount.target, mount.writable) for mount in asked.mounts]
    assert shown == [
        ("/a", "/b", False),
        ("/c", "/d", True),
        ("/e", "/f", False),
        ("/g", "/h", True),
    ]
    assert (asked.user, asked.hosts, asked.network) == ("7:8", ("a:1.2.3.4",), "none")
    assert asked.resources == Resources(1.5, 1 << 30, 9)
    assert asked.interactive


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no image is named"),
        (["image"], "--rm is missing"),
        (["--rm", "--name"], "the option --name lacks its value"),
        (["--rm", "--wat", "image"], "the option --wat is not supported"),
        (["--rm", "-it", "image"], "the option -t is not supported"),
        (["--rm=maybe", "image"], "the option --rm is not supported"),
        (["--rm", "--cpus", "many", "image"], "--cpus many cannot be read"),
        (["--rm", "--memory", "many", "image"], "--memory many cannot be read"),
        (["--rm", "--mount", "type=tmpfs,target=/x", "image"], "--mount type=tmpfs,target=/x"),
        (["--rm", "-v", "/a:/b:Z", "image"], "-v /a:/b:Z is not supported"),
        (["--rm", "-v", "/a", "image"], "-v /a is not supported"),
        (["--rm", "--security-opt", "seccomp=unconfined", "image"], "--security-opt seccomp="),
    ],
)
def test_what_cannot_be_followed_is_named(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match="docker run: ") as caught:
        arguments.run(words)
    assert said in caught.value.message
    assert caught.value.cleaned == "nothing was started"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Names}}", "nanoclaw-a-1"),
        ('{{.Names}}|{{.Label "a.b"}}|{{ .Label "none" }}', "nanoclaw-a-1|c d|"),
        ('{{index .Config.Labels "a.b"}}', "c d"),
        ("{{.State.Status}}|{{.State.ExitCode}}|{{.State.Running}}", "running|0|true"),
        ("table {{.Names}}\\t{{json .Config}}", 'nanoclaw-a-1\t{"Labels":{"a.b":"c d"}}'),
        ("plain", "plain"),
    ],
)
def test_a_template_is_filled_in(template: str, text: str) -> None:
    assert render(template, ROW) == text
    assert "_labels" not in render("{{json .}}", ROW)


@pytest.mark.parametrize(
    "action", ["{{.Nothing}}", "{{range .}}", "{{.Names.x}}", "{{len .Names}}"]
)
def test_another_template_is_refused(action: str) -> None:
    with pytest.raises(ConfigError, match="is not supported"):
        render(action, ROW)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([], True),
        (["name=nanoclaw-"], True),
        (["name=claw-a"], True),
        (["name=^claw"], False),
        (["name=^/nanoclaw-a-1$"], True),
        (["name=x", "name=a-1$"], True),
        (["label=k"], True),
        (["label=k=v"], True),
        (["label=k=w"], False),
        (["label=k", "label=other"], False),
        (["status=exited"], False),
        (["status=exited", "status=running"], True),
    ],
)
def test_filters_mean_what_they_mean_to_docker(
    filters: list[str],
    found: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = Record("nanoclaw-a-1", "/n", "a", "image", {"k": "v"})
    monkeypatch.setattr(answers, "containers", lambda _, root: [Container(record, running=True)])
    words = [word for one in filters for word in ("--filter", one)]
    assert answers.ps([*words, "--format", "{{.Names}}"], "/n") == 0
    assert capsys.readouterr().out == "nanoclaw-a-1\n" * found


def test_listings_without_a_template(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = Record("nanoclaw-a-1", "/n", "a", "image")
    monkeypatch.setattr(answers, "containers", lambda _, root: [Container(record, running=False)])
    answers.ps(["-a"], "/n")
    assert capsys.readouterr().out.splitlines()[1].endswith("   removing   nanoclaw-a-1")
    answers.ps(["-q"], "/n")
    assert capsys.readouterr().out == f"{record.identity[:12]}\n"
    with pytest.raises(ConfigError, match="--filter before=x is not supported"):
        answers.ps(["--filter", "before=x"], "/n")
    with pytest.raises(ConfigError, match="takes no arguments"):
        answers.ps(["x"], "/n")


@pytest.mark.parametrize("group", ["family", "family_chat", "v2-x", "A-1"])
def test_a_group_is_told_by_its_folder(tmp_path: Path, group: str) -> None:
    root = recordings.installation(tmp_path, group, "main")
    for words, kind in ((recordings.v1(root, group), "v1"), (recordings.v2(root, group), "v2")):
        asked = arguments.run(words[1:])
        assert (layout.of(asked), layout.group_of(asked, root)) == (kind, group)
    main = arguments.run(recordings.v1_main(root)[1:])
    assert (layout.of(main), layout.group_of(main, root)) == ("v1 main", "main")


def test_a_container_that_is_no_groups_is_refused(tmp_path: Path) -> None:
    root = recordings.installation(tmp_path / "nanoclaw", "family", "work")
    with pytest.raises(ConfigError, match="mounts no group's folder"):
        layout.of(arguments.Run("nanoclaw-x-1", "image"))
    words = recordings.v1(root, "family")
    words[words.index("--name") + 1] = "nanoclaw-work-1"
    with pytest.raises(ConfigError, match="is not named for it"):
        layout.group_of(arguments.run(words[1:]), root)
    with pytest.raises(ConfigError, match="no group of"):
        layout.group_of(arguments.run(recordings.v1(root, "family")[1:]), tmp_path)
    labelled = arguments.Run(
        "ncl-1-2",
        "image",
        labels={layout.LABEL: "work"},
        mounts=(Mount(root / "groups/family", "/workspace/agent"),),
    )
    with pytest.raises(ConfigError, match="is not named for it"):
        layout.group_of(labelled, root)
