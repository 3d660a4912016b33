"""Every kind of broken distribution, installed side by side: each is named, none is in the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent, indent

import pytest

import claw_core
from cli.support import hide

BASE = """
from claw_core import Assessment, Description, Exit, Isolation, Runtime

class Plugin(Runtime):
    async def describe(self):
        return Description(available=True, version="7", isolation=Isolation.VM)
    async def assess(self, spec):
        return Assessment(Isolation.VM, dies_with_owner=True)
    async def prepare(self, instance): ...
    async def start(self, instance): ...
    async def execute(self, instance, command, io):
        await io.stdout(b"from the plugin\\n")
        return Exit(0)
    async def teardown(self, instance): ...
    async def list_instances(self, install):
        return frozenset()
"""


def changed(method: str) -> str:
    """The good plugin with one method written anew."""
    return BASE + indent(dedent(method), "    ")


SOURCES: Mapping[str, str] = {
    "prints": "print('noise while it is imported')\n"
    + changed("def __init__(self, settings):\n    super().__init__(settings)\n    print('noise')"),
    "imports": "import there_is_no_such_module",
    "exits": "import sys\nsys.exit(3)",
    "raises": changed("def __init__(self, settings):\n    raise ValueError('of its own')"),
    "lacks": BASE.replace("    async def teardown(self, instance): ...\n", ""),
    "argues": BASE.replace("def start(self, instance)", "def start(self, machine)"),
    "blocks": BASE.replace("    async def prepare", "    def prepare"),
    "apple": changed(
        """
        async def describe(self):
            import asyncio
            await asyncio.Event().wait()
        async def assess(self, spec):
            import asyncio
            await asyncio.Event().wait()
        """
    ),
    "sleeps": changed("async def describe(self):\n    import time\n    time.sleep(600)"),
    "twin-a": BASE,
    "twin-b": BASE,
}
"""Name -> source of the one module of `claw-fake-NAME`; the twins offer the same runtime."""

WRONG = {
    "imports": "cannot be imported: ModuleNotFoundError",
    "exits": "cannot be imported: SystemExit: 3",
    "raises": "cannot be made from its settings: ValueError: of its own",
    "lacks": "hook teardown is missing: add `async def teardown(self, instance)`",
    "argues": "hook start lacks instance and has machine",
    "blocks": "hook prepare is not async",
    "apple": "did not answer within 1 s",
    "sleeps": "describe of the plugin sleeps of claw-fake-sleeps 1.2 did not answer within 1 s",
    "twin": "more than one distribution offers this runtime: claw-fake-twin-",
}

CLAW = """
import sys
from claw_core import relay
from claw_core.__main__ import main
relay.ANSWER_TIMEOUT = 1.0
main()
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory into which an installer put all of them."""
    base = tmp_path_factory.mktemp("plugins")
    wheels = [str(wheel(base, name, source)) for name, source in SOURCES.items()]
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    pip = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
    options = ["install", "-q", "--no-deps", "--no-index", "--target", str(base / "site")]
    subprocess.run([*pip, *options, *wheels], check=True, timeout=100)
    return hide(base / "site", "claw-runtime-apple")


def wheel(base: Path, name: str, source: str) -> Path:
    module = f"claw_fake_{name.replace('-', '_')}"
    info = f"{module}-1.2.dist-info"
    path = base / f"{module}-1.2-py3-none-any.whl"
    runtime = name.partition("-")[0]
    files = {
        f"{module}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: claw-fake-{name}\nVersion: 1.2\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[claw.runtimes]\n{runtime} = {module}:Plugin\n",
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    return path


def claw(site: Path, *args: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(claw_core.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", CLAW, *args],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([source, str(site)])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_listing_has_a_row_for_each_and_waits_for_none(site: Path) -> None:
    done = claw(site, "runtimes", "--json")
    assert done.returncode == 0, done.stderr
    assert "noise while it is imported" in done.stderr
    rows = json.loads(done.stdout)
    by_name = {row["name"]: row for row in rows}
    assert by_name["prints"]["available"]
    assert by_name["prints"]["version"] == "7"
    assert by_name["local"]["available"]
    for name, message in WRONG.items():
        row = by_name[name]
        assert not row["available"]
        assert row["from"].startswith(f"claw-fake-{name}")
        assert row["from"].endswith(" 1.2")
        assert message in row["reason"]
        assert f"claw-fake-{name}" in row["remedy"]
    assert sum(row["name"] == "twin" for row in rows) == 2


@pytest.mark.parametrize("name", [name for name in WRONG if name != "sleeps"])
def test_asked_for_by_name_it_says_what_is_wrong_and_what_to_do(site: Path, name: str) -> None:
    done = claw(site, "run", "-r", name, "--", "true")
    assert done.returncode == 125
    assert done.stdout == ""
    assert WRONG[name] in done.stderr
    assert f"claw-fake-{name}" in done.stderr
    assert "1.2" in done.stderr
    assert "what to do: " in done.stderr
    assert "pip " in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_plugin_prints_is_not_mixed_with_the_output_of_the_command(site: Path) -> None:
    done = claw(site, "run", "-r", "prints", "--", "true")
    assert (done.returncode, done.stdout) == (0, "from the plugin\n")
    assert done.stderr.splitlines() == ["noise while it is imported", "noise"]


@pytest.mark.parametrize("choice", [["-r", "local"], []])
def test_a_run_on_another_runtime_is_untouched(site: Path, choice: list[str]) -> None:
    """Without a choice `apple` is asked first, does not answer, and is passed over."""
    done = claw(site, "run", *choice, "--", "echo", "untouched")
    assert (done.returncode, done.stdout, done.stderr) == (0, "untouched\n", "")
