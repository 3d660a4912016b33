"""Runtimes found by their entry points, in distributions made for each test."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, cast

import pytest

import claw_core
from claw_core.discovery import Origin
from claw_core.errors import ConfigError, PluginError, UnknownRuntime
from claw_core.model import Instance, Spec
from claw_core.registry import Registry, Row, load_observers
from cli.support import hide

if TYPE_CHECKING:
    from claw_core.host import Host

GOOD = """
from claw_core.hookspecs import Runtime
from claw_core.model import Assessment, Description, Exit
from claw_core.isolation import Isolation

class Good(Runtime):
    async def describe(self):
        return Description(available=True, version=str(self.settings.get("version")))
    async def assess(self, spec):
        return Assessment(Isolation.VM)
    async def prepare(self, instance): ...
    async def start(self, instance): ...
    async def execute(self, instance, command, io):
        return Exit(0)
    async def teardown(self, instance): ...
    async def list_instances(self, install):
        return frozenset()
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Makes a distribution with one module, as an installer would leave it behind."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)

    def make(
        distribution: str,
        entries: str,
        source: str = GOOD,
        version: str = "1.2",
        group: str = "claw.runtimes",
    ) -> None:
        module = distribution.replace("-", "_")
        (site / f"{module}.py").write_text(dedent(source))
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        info.joinpath("entry_points.txt").write_text(f"[{group}]\n{entries}\n")

    yield make
    for name in set(sys.modules) - before:
        if name.startswith("fake_"):
            del sys.modules[name]


def broken(name: str) -> PluginError:
    with pytest.raises(PluginError) as caught:
        Registry().resolve(name)
    error = caught.value
    text = str(error)
    assert name in text
    assert "fake-" in text
    assert "1.2" in text
    assert error.remedy
    return error


def edited(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_runtime_is_resolved_from_its_entry_point(install: Install) -> None:
    install("fake-good", "good = fake_good:Good")
    registry = Registry()
    assert "good" in registry.names()
    assert registry.origin("good") == Origin("fake-good", "1.2")
    assert str(registry.origin("good")) == "fake-good 1.2"
    relay = registry.resolve("good", {"version": 7})
    assert relay.name == "good"
    assert relay.settings == {"version": 7}
    assert asyncio.run(relay.describe()).version == "7"


def test_listing_names_imports_nothing_and_resolving_imports_one(install: Install) -> None:
    install("fake-good", "good = fake_good:Good")
    install("fake-other", "other = fake_other:Good")
    registry = Registry()
    assert {"good", "other"} <= set(registry.names())
    assert not {"fake_good", "fake_other"} & set(sys.modules)
    registry.resolve("good")
    assert "fake_good" in sys.modules
    assert "fake_other" not in sys.modules


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import not_there", "ModuleNotFoundError"),
        ("def (", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
        ("raise BaseException('odd')", "odd"),
        ("", "AttributeError"),
    ],
)
def test_a_broken_import_is_an_error_of_that_plugin_alone(
    install: Install, source: str, cause: str
) -> None:
    install("fake-broken", "broken = fake_broken:Good", source)
    install("fake-good", "good = fake_good:Good")
    error = broken("broken")
    assert cause in error.message
    assert "fake-broken" in (error.remedy or "")
    assert Registry().resolve("good").name == "good"
    rows = {row.name: row for row in Registry().rows()}
    assert rows["good"] == Row("good", "fake-good", "1.2")
    assert cause in str(rows["broken"].error)
    assert [row.name for row in Registry().broken() if row.name != "local"] == ["broken"]


def test_a_keyboard_interrupt_during_an_import_passes(install: Install) -> None:
    install("fake-broken", "broken = fake_broken:Good", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Registry().resolve("broken")


def test_two_distributions_with_one_name_are_both_named(install: Install) -> None:
    install("fake-one", "same = fake_one:Good")
    install("fake-two", "same = fake_two:Good", version="3")
    with pytest.raises(PluginError, match=r"fake-\w+ [\d.]+ and fake-\w+ [\d.]+") as caught:
        Registry().resolve("same")
    assert "pip uninstall" in (caught.value.remedy or "")
    rows = [row for row in Registry().rows() if row.name == "same"]
    assert sorted((row.distribution, row.version) for row in rows) == [
        ("fake-one", "1.2"),
        ("fake-two", "3"),
    ]
    assert all(row.error for row in rows)
    assert not {"fake_one", "fake_two"} & set(sys.modules)


def test_nobody_else_can_offer_local(install: Install) -> None:
    install("fake-local", "local = fake_local:Good")
    with pytest.raises(PluginError, match="claw-core"):
        Registry().origin("local")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("tart", "pip install claw-runtime-tart"),
        ("apple", "pip install claw-runtime-apple"),
        ("container", "pip install claw-runtime-apple"),
        ("trat", "did you mean tart? pip install claw-runtime-tart"),
        ("lokal", "did you mean local?"),
        ("nothing-like-it", "name one of the installed"),
    ],
)
def test_an_unknown_runtime_says_what_is_there_and_what_to_do(
    name: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = hide(tmp_path, "claw-runtime-tart", "claw-runtime-apple")
    monkeypatch.syspath_prepend(str(hidden))
    with pytest.raises(UnknownRuntime, match=f"'{name}'.*local") as caught:
        Registry().resolve(name)
    assert remedy in (caught.value.remedy or "")
    assert caught.value.exit_code == 2


def test_container_is_another_name_for_apple(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(hide(tmp_path / "hidden", "claw-runtime-apple")))
    install("fake-apple", "apple = fake_apple:Good")
    assert Registry().resolve("container").name == "apple"
    assert "container" not in Registry().names()


@pytest.mark.parametrize(
    ("source", "messages"),
    [
        ("Good = 3", ["3 is not a class"]),
        ("class Good: pass", ["not a class derived from"]),
        (edited("class Good(Runtime):", "class Good(Runtime):\n    api = 9"), ["version 9"]),
        (
            edited("async def teardown(self, instance): ...", "").replace(
                "async def start(self, instance): ...", ""
            ),
            [
                "hook start is missing: add `async def start(self, instance)`",
                "hook teardown is missing: add `async def teardown(self, instance)`",
            ],
        ),
        (
            edited("async def teardown(self, instance)", "def teardown(self, instance)"),
            ["hook teardown is not async: write `async def teardown(self, instance)`"],
        ),
        (
            edited(
                "execute(self, instance, command, io):\n        return Exit(0)",
                "execute(self, instance, command, io):\n        yield Exit(0)",
            ),
            ["hook execute is an async generator"],
        ),
        (
            edited("async def start", "@staticmethod\n    async def start"),
            ["hook start is no plain method"],
        ),
        (
            edited("execute(self, instance, command, io)", "execute(self, instance, command)"),
            ["hook execute lacks io: write `async def execute(self, instance, command, io)`"],
        ),
        (
            edited(
                "execute(self, instance, command, io)",
                "execute(self, instance, command, io, tty=False)",
            ),
            ["hook execute has tty=False, which the contract does not know"],
        ),
        (
            edited("start(self, instance)", "start(self, machine)"),
            ["hook start lacks instance and has machine, which"],
        ),
        (
            edited("execute(self, instance, command, io)", "execute(self, instance, io, command)"),
            ["hook execute has its arguments in another order"],
        ),
        (
            edited("start(self, instance)", "start(self, *instance, **more)"),
            ["hook start lacks instance and has *instance, **more"],
        ),
        (
            GOOD + "\n    async def snapshoot(self, instance, target): ...",
            ["method snapshoot looks like the hook snapshot"],
        ),
        (
            GOOD + "\n    async def snapshot(self, instance, target): ...",
            [
                "hook snapshot needs the hook list_snapshots",
                "hook snapshot needs the hook delete_snapshot",
            ],
        ),
    ],
)
def test_a_class_that_breaks_the_contract_is_told_what_and_how_to_mend_it(
    install: Install, source: str, messages: list[str]
) -> None:
    install("fake-bad", "bad = fake_bad:Good", source)
    error = broken("bad")
    for message in messages:
        assert message in error.message


def test_helpers_with_names_like_hooks_that_are_there_are_no_typos(install: Install) -> None:
    source = GOOD + "\n    async def restart(self): ...\n    async def _snapshoot(self): ..."
    install("fake-good", "good = fake_good:Good", source)
    assert Registry().resolve("good").name == "good"


@pytest.mark.parametrize("failure", ["ValueError('wrong')", "SystemExit(1)"])
def test_a_constructor_that_fails_is_named(install: Install, failure: str) -> None:
    source = GOOD + f"\n    def __init__(self, settings): raise {failure}"
    install("fake-bad", "bad = fake_bad:Good", source)
    assert "cannot be made from its settings" in broken("bad").message


def test_a_constructor_may_pin_what_its_settings_leave_open(install: Install) -> None:
    source = GOOD + "\n    def __init__(self, settings): self.settings = {**settings, 'at': 'x'}"
    install("fake-good", "good = fake_good:Good", source)
    assert Registry().resolve("good", {"version": 7}).settings == {"version": 7, "at": "x"}


def test_a_constructor_may_refuse_its_settings(install: Install) -> None:
    source = GOOD + (
        "\n    def __init__(self, settings):"
        "\n        from claw_core.errors import ConfigError"
        "\n        raise ConfigError('no such key')"
    )
    install("fake-bad", "bad = fake_bad:Good", source)
    with pytest.raises(ConfigError) as caught:
        Registry().resolve("bad")
    assert caught.value.runtime == "bad"


def test_unreadable_metadata_hides_nobody_else(install: Install, tmp_path: Path) -> None:
    install("fake-good", "good = fake_good:Good")
    install("fake-odd", "this line is no entry point")
    unnamed = tmp_path / "site" / "fake_unnamed-1.2.dist-info"
    unnamed.mkdir()
    unnamed.joinpath("entry_points.txt").write_text("[claw.runtimes]\nunnamed = fake_good:Good\n")
    binary = tmp_path / "site" / "fake_binary-1.2.dist-info"
    binary.mkdir()
    binary.joinpath("entry_points.txt").write_bytes(b"[claw.runtimes]\n\xff\xff = x\n")
    registry = Registry()
    assert {"good", "unnamed"} <= set(registry.names())
    assert registry.resolve("good").name == "good"
    assert "fake-odd" in {row.distribution for row in registry.broken()}
    assert str(registry.origin("unnamed")) == "fake_unnamed 1.2"


OBSERVER = """
class Watch:
    def __init__(self): self.seen = []
    def around(self, phase): self.seen.append(phase.name)
class Odd:
    def around(self, stage): ...
class Failing(Watch):
    def __init__(self): raise RuntimeError("no")
def command(): raise AssertionError("not an observer")
ready = Watch()
"""


def test_observers_are_loaded_each_by_itself(install: Install) -> None:
    entries = "\n".join(
        f"{name} = fake_watch:{name}"
        for name in ("Watch", "ready", "Odd", "Failing", "absent", "command")
    )
    install("fake-watch", entries, OBSERVER, group="claw.plugins")
    install("fake-dead", "dead = fake_dead:x", "raise SystemExit", group="claw.plugins")
    errors: list[PluginError] = []
    observers = load_observers(errors.append)
    assert [type(one).__name__ for one in observers.values()] == ["Watch", "Watch"]
    assert set(observers) == {"Watch", "ready"}
    assert len(errors) == 4
    for name in ("Odd", "Failing", "absent", "dead"):
        assert any(name in str(error) and "1.2" in str(error) for error in errors), name


def test_the_observers_of_the_registry_are_held_around_every_runtime(install: Install) -> None:
    install("fake-good", "good = fake_good:Good")
    install("fake-watch", "watch = fake_watch:Watch", OBSERVER, group="claw.plugins")
    errors: list[PluginError] = []
    observers = list(load_observers(errors.append).values())
    assert errors == []
    relay = Registry(observers).resolve("good")
    asyncio.run(relay.prepare(Instance("claw-1-2", Spec(), cast("Host", None))))
    assert observers[0].seen == ["prepare"]  # type: ignore[attr-defined]


def test_importing_the_registry_reads_no_metadata() -> None:
    code = (
        "import sys, claw_core.registry, claw_core.relay\n"
        "print({'importlib.metadata', 'cattrs', 'click', 'claw_core.local'} & set(sys.modules))"
    )
    source = str(Path(claw_core.__file__).parents[1])
    # -S: an editable install may import importlib.metadata before we do.
    site = [path for path in sys.path if path.endswith("site-packages")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, *site])}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, capture_output=True, check=True
    )
    assert done.stdout.strip() == b"set()"
