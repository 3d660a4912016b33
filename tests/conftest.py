"""What every test gets: a state directory of its own; and in CI, no skipped test."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from claw_core.config.sources import ENVIRONMENT

# Under nohup, or in the background of a shell, signals are ignored, and children inherit that.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)

hypothesis.settings.register_profile("dev", max_examples=50, deadline=None)
hypothesis.settings.register_profile(
    "ci", max_examples=200, deadline=None, derandomize=True, print_blob=True
)
hypothesis.settings.register_profile("soak", max_examples=20_000, deadline=None)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev")
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--claw-seed=N` runs one schedule of the simulation again; `--live-tart` uses a real Tart."""
    parser.addoption("--claw-seed", type=int, help="number of the schedule to replay")
    parser.addoption(
        "--live-tart",
        action="store_true",
        help="use the Tart of this Mac, with a tart_nanoclaw_base, in place of the simulated one",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tell the workers of a test run and the processes that they start."""
    if config.getoption("--live-tart"):
        os.environ["CLAW_LIVE_TART"] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the large counts out unless they are asked for with `-m soak`."""
    if "soak" in (config.getoption("-m") or ""):
        return
    chosen = [item for item in items if item.get_closest_marker("soak") is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In continuous integration a skipped test is a failure: there, everything can run."""
    if not os.environ.get("CI") or hasattr(session.config, "workerinput"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("skipped tests are not allowed here", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def state(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A ledger of its own for every test, never the developer's."""
    directory = tmp_path_factory.mktemp("state")
    directory.chmod(0o700)
    monkeypatch.setenv("CLAW_STATE", str(directory))
    # The probe of the local engines is remembered, but not where the developer's own is.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(directory / "no-configuration"))
    for name in ("CLAW_FAILPOINT", "CLAW_CONFIG", "CLAW_ROOT", *ENVIRONMENT):
        monkeypatch.delenv(name, raising=False)
    yield directory
    # A waiter keeps trying what a test left behind on purpose, for as long as there is a ledger.
    shutil.rmtree(directory, ignore_errors=True)
