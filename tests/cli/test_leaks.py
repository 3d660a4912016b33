"""A runtime that says the values of secrets wherever it can: none of it comes out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.support import claw, install

VALUE = "canary-8675309"
LEAKY = f"""
import os
from claw_core.errors import RuntimeFault
from claw_core.hookspecs import Runtime
from claw_core.isolation import Isolation
from claw_core.model import Assessment, Description, Exit, Refusal

SAID = "the value is {VALUE}"

class Leaky(Runtime):
    async def describe(self):
        return Description(True, SAID, SAID, SAID, Isolation.VM)
    async def assess(self, spec):
        how = os.environ.get("LEAK")
        if how == "refuse":
            return Refusal(SAID, SAID)
        if how == "raise":
            raise ValueError(SAID)
        return Assessment(Isolation.VM, notes=(SAID,))
    async def prepare(self, instance):
        instance.host.progress(SAID)
    async def start(self, instance):
        if os.environ.get("LEAK") == "start":
            raise RuntimeFault(SAID, remedy=SAID)
    async def execute(self, instance, command, io):
        return Exit(127, reason=SAID)
    async def teardown(self, instance): ...
    async def list_instances(self, install):
        return frozenset()
"""


@pytest.mark.parametrize("leak", ["", "refuse", "raise", "start"])
@pytest.mark.parametrize("how", ["option", "configured"])
def test_no_value_of_a_secret_comes_out(
    leak: str, how: str, tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, "claw-leaky", "leaky = claw_leaky:Leaky", LEAKY, "claw.runtimes")
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    env = {"KEY": VALUE, "LEAK": leak, "PYTHONPATH": path}
    config = tmp_path / "claw.toml"
    config.write_text('runtime = "leaky"\n' + 'secrets = ["KEY"]\n' * (how == "configured"))
    option = ["--secret", "KEY"] if how == "option" else []
    log = tmp_path / "events"
    outputs = [claw("run", "-v", "--config", config, "--events", log, *option, "--", "x", env=env)]
    assert outputs[0].returncode in {125, 127}
    if how == "configured":
        commands = (["explain"], ["explain", "--json"], ["doctor"], ["doctor", "--json"])
        outputs += [claw(*command, "--config", config, env=env) for command in commands]
    said = b"".join(done.stdout + done.stderr for done in outputs)
    assert VALUE.encode() not in said
    assert b"[secret KEY]" in said
    for file in (log, state / "runs.jsonl"):
        assert not file.exists() or VALUE not in file.read_text()
