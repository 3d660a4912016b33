"""The real `claude` and `codex`, from npm, against an API of our own: nothing else is simulated."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from agents.api import Api, serving
from claw_core.config.recipe import Recipe
from claw_runtime_docker.runtime import DockerRuntime
from cli.support import CLAW, claw
from runtime_docker import closure, engines

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

SESSION = re.compile(r"^\[session: (\S+)\]$", re.MULTILINE)
GATEWAY = "172.17.0.1"
"""Address of the engine's bridge, as Docker gives it where nothing else has it."""


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`node_modules` with both agents, in the versions of the shipped recipe; fetched once."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "npm"
    folder.mkdir(exist_ok=True)
    versions = Recipe.load(DockerRuntime.recipe).variables
    packages = {"@anthropic-ai/claude-code": "CLAUDE_CODE", "@openai/codex": "CODEX"}
    wanted = [f"{name}@{versions[variable]}" for name, variable in packages.items()]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
            subprocess.run([*install, *wanted], check=True, timeout=300)
            (folder / "done").touch()
    for path in (folder, *folder.parents[:3]):
        path.chmod(path.stat().st_mode | 0o755)
    return folder / "node_modules"


@attrs.frozen
class Place:
    """Where agents run, and the API that they can reach from there."""

    api: Api
    options: tuple[str, ...]
    environment: dict[str, str]

    def command(self, root: Path, agent: str, *options: str) -> list[str]:
        base = f"{self.api.url}/v1"
        provider = (
            f'{{name="here", base_url="{base}", wire_api="responses", env_key="OPENAI_API_KEY"}}'
        )
        custom = ("-c", "model_provider=here", "-c", f"model_providers.here={provider}")
        return [
            *("run", "-q", "--root", str(root), "-g", "finance", *self.options),
            *("--agent", agent, *options, *(("--", *custom) if agent == "codex" else ())),
        ]

    def asked(
        self, root: Path, agent: str, *options: str, prompt: str
    ) -> subprocess.CompletedProcess[str]:
        command = [word for word in self.command(root, agent, *options) if word != "-q"]
        done = claw(*command, stdin=prompt.encode(), env=self.environment)
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )


@contextlib.contextmanager
def local(modules: Path, directory: Path) -> Iterator[Place]:
    with serving(directory) as api:
        inside = "/npm/node_modules"
        options = ("-r", "local", "--mount", f"{modules}:{inside}")
        path = ("-e", f"PATH={inside}/.bin:/usr/bin:/bin")
        yield Place(api, (*options, *path), variables(api))


@contextlib.contextmanager
def docker(modules: Path, directory: Path) -> Iterator[Place]:
    """A hardened container that has nothing but busybox and the two programs."""
    programs = {
        "/bin/claude": max(modules.glob("@anthropic-ai/*/claude"), key=lambda p: p.stat().st_size),
        "/bin/codex": next(iter(modules.glob("@openai/*/vendor/*/bin/codex"))),
    }
    with engines.private("bridge") as engine:
        tree = closure.image(programs)
        engine.import_image(tree, "claw-test-agents:1", "ENV PATH=/bin")
        pid = (engine.directory / "namespace").read_text()
        with serving(directory, GATEWAY, ("nsenter", "-t", pid, "-n")) as api:
            options = ("-r", "docker", "--image", "claw-test-agents:1")
            yield Place(api, options, {**variables(api), "DOCKER_HOST": engine.host})
        assert engine.names() == set()


def variables(api: Api) -> dict[str, str]:
    return {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": api.url, "OPENAI_API_KEY": "k"}


@pytest.fixture(scope="module", params=[local, docker], ids=["local", "docker"])
def place(
    request: pytest.FixtureRequest, modules: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    with request.param(modules, tmp_path_factory.mktemp("api")) as found:
        yield found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "groups/finance").mkdir(parents=True)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o755)
    return tmp_path


@pytest.mark.parametrize("agent", ["claude", "codex"])
def test_it_answers_and_goes_on_in_another_instance(place: Place, root: Path, agent: str) -> None:
    first = place.asked(root, agent, prompt="what is the answer?")
    assert (first.returncode, first.stdout) == (0, "The answer is 42.\n"), first.stderr
    (session,) = SESSION.findall(first.stderr)
    second = place.asked(root, agent, "--session", session, prompt="are you sure?")
    assert (second.returncode, second.stdout) == (0, "The answer is 42.\n"), second.stderr
    assert SESSION.findall(second.stderr) == [session]
    said = place.api.prompts()
    assert [one for one in said if one.endswith("?")] == ["what is the answer?", "are you sure?"]
    lost = place.asked(root, agent, "--session", f"{session[:-4]}0000", prompt="and now?")
    assert lost.returncode == 1
    assert re.search(r"claw: \w+: session \S+ not found", lost.stderr), lost.stderr


def test_parts_of_an_answer_come_while_the_api_has_not_given_the_rest(
    place: Place, root: Path
) -> None:
    command = [*CLAW, *place.command(root, "claude", "-p", "go")]
    environment = {**os.environ, **place.environment}
    with place.api.holding():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert process.stdout is not None
        first = os.read(process.stdout.fileno(), 100)
    with process:
        assert (first, process.stdout.read()) == (b"The answer ", b"is 42.\n")
    assert process.returncode == 0


@pytest.mark.parametrize("agent", ["claude", "codex"])
def test_credentials_that_are_refused_end_it_soon(place: Place, root: Path, agent: str) -> None:
    """`claude` alone would go on trying for minutes."""
    place.api.refuse(401)
    try:
        refused = place.asked(root, agent, prompt="what is the answer?")
    finally:
        (place.api.directory / "refuse").unlink()
    assert (refused.returncode, refused.stdout) == (1, "")
    assert re.search(rf"claw: {agent}: .*401", refused.stderr), refused.stderr
    again = place.asked(root, agent, prompt="what is the answer?")
    assert again.stdout == "The answer is 42.\n"


@pytest.mark.parametrize(
    ("agent", "says"), [("claude", "Prompt is too long"), ("codex", "exceeds the maximum length")]
)
def test_a_prompt_of_five_megabytes_is_more_than_they_take(
    place: Place, root: Path, agent: str, says: str
) -> None:
    """claw hands it on whole; half a megabyte is fine for both."""
    done = place.asked(root, agent, prompt="x" * (5 << 20))
    assert done.returncode == 1
    assert says in done.stderr
    assert place.asked(root, agent, prompt="x" * (1 << 19)).stdout == "The answer is 42.\n"
    assert max(map(len, place.api.prompts())) == 1 << 19
