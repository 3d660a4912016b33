"""Which engine is used: what is remembered, what is forbidden, and what the user reads about it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from claw_core.local import probe
from claw_core.local.runtime import LocalRuntime
from claw_core.local.seccomp import ALLOW, LOAD, RETURN, encode, installer, refuse
from local.callers import DRIVER, PRELUDE, Caller


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"key": 1}', '{"key": "K", "works": 5}', "\udcff"]
)
def test_a_useless_cache_is_replaced(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = probe._cache()
    cache.parent.mkdir()
    cache.write_text(content.replace("K", probe._key()), errors="surrogateescape")
    assert asyncio.run(probe.probe("guard")) is None
    assert json.loads(cache.read_text())["works"] == ["guard"]


def test_a_cache_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert asyncio.run(probe.probe("guard")) is None
    assert asyncio.run(LocalRuntime({}).describe()).available


def test_forbidden_user_namespaces_lead_to_the_guard_and_the_fix_is_named(user: Caller) -> None:
    before = (
        "unshare", "--user", "--map-root-user", "sh", "-c",
        'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"', "sh",
    )  # fmt: skip
    result = user.attempt("auto", "attempt('1 + 1')", before=before)
    assert result["level"] == "guard"
    assert result["answers"] == [[0, "@ 2\n"]]
    notice = next(one for one in result["notices"] if "not namespaces" in one)
    assert "user namespaces are forbidden" in notice
    assert "sysctl -w user.max_user_namespaces=15000" in notice
    result = user.attempt("namespaces", "print(1)", before=before)
    assert result["level"] == "refused"


def test_without_landlock_and_user_namespaces_there_is_no_sandbox(user: Caller) -> None:
    # As in a container whose filter knows neither: Landlock's three calls, and unshare.
    numbers = (444, 445, 446, 272, 97)
    code = [(LOAD, 0, 0, 0)]
    for number in numbers:
        code += [(0x15, 0, 1, number), (RETURN, 0, 0, refuse())]
    code += [(RETURN, 0, 0, ALLOW)]
    assert callable(installer(encode(code)))
    wrapped = (
        "from claw_core.local import kernel, seccomp\n"
        "kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)\n"
        f"seccomp.installer(seccomp.encode({code!r}))()\n" + DRIVER
    )
    wish = {"engine": "auto", "programs": [PRELUDE]}
    result = json.loads(user.python_program(wrapped, json.dumps(wish)))
    assert result["level"] == "refused"
    assert "Landlock" in result["answers"][0][1] or "unshare" in result["answers"][0][1]
    wish["engine"] = "guard"
    result = json.loads(user.python_program(wrapped, json.dumps(wish)))
    assert result["level"] == "refused"
    assert "Landlock" in result["answers"][0][1]


def test_a_probe_leaves_nothing_behind() -> None:
    name = f"claw-probe-{os.getpid()}"
    assert asyncio.run(probe.probe("namespaces")) is None
    assert not Path("/tmp", name).exists()
