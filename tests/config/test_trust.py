"""What a group's own file may ask for after its first use."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claw_core.config.config import Config
from claw_core.errors import ConfigError, Untrusted
from claw_core.isolation import Isolation
from claw_core.known import KNOWN
from claw_core.trust import Asked, TrustStore, differences

FIRST: dict[str, Any] = {
    "runtime": "docker",
    "image": "agent:1",
    "timeout": 1000,
    "env": {"A": "1", "B": "2"},
    "additionalMounts": [
        {"hostPath": "/data/a", "readonly": False},
        {"hostPath": "/data/b"},
    ],
}


DAMAGED = '{"v": 1, "runtime": null, "image": null, "env": {}, "mounts": []}'


class Place:
    """A root with one group, and the store of somebody's state directory."""

    def __init__(self, root: Path, state: Path) -> None:
        (root / "groups/g").mkdir(parents=True)
        self.root = root
        self.config = Config.load(root=root, environ={})
        self.store = TrustStore(state, "0123abcd", root)

    def write(self, content: dict[str, Any] | None) -> None:
        path = self.root / "groups/g/config.json"
        if content is None:
            path.unlink()
        else:
            path.write_text(json.dumps({"containerConfig": content}))

    def check(self) -> None:
        self.store.check(self.config.group("g"))

    def remember(self) -> None:
        self.store.remember(self.config.group("g"))

    def refused(self, **changes: Any) -> list[str]:
        self.write({**FIRST, **changes})
        with pytest.raises(Untrusted) as error:
            self.check()
        assert error.value.exit_code == 2
        assert "claw trust g" in str(error.value)
        lines = error.value.message.split("\n    ")
        assert lines[1:] == self.store.pending(self.config.group("g"))
        return lines[1:]


@pytest.fixture
def place(tmp_path: Path, state: Path) -> Place:
    made = Place(tmp_path / "root", state)
    made.write(FIRST)
    made.remember()
    return made


def test_a_first_use_is_accepted_and_the_same_again_is_too(place: Place) -> None:
    place.check()
    place.remember()
    place.check()


@pytest.mark.parametrize("runtime", ["local", "somebodys", "auto", "container-x"])
def test_a_runtime_that_may_isolate_less_is_refused(place: Place, runtime: str) -> None:
    assert place.refused(runtime=runtime) == [f"runtime: docker -> {runtime}"]


@pytest.mark.parametrize("runtime", ["tart", "apple", "container"])
def test_a_runtime_that_isolates_more_is_accepted(place: Place, runtime: str) -> None:
    place.write({**FIRST, "runtime": runtime})
    place.check()
    place.write(FIRST)
    place.check()


def test_what_else_asks_for_more_is_refused_with_the_difference(place: Place) -> None:
    assert place.refused(image="evil:1") == ["image: agent:1 -> evil:1"]
    assert place.refused(env={"A": "1", "B": "3"}) == ["variable B: changed"]
    assert place.refused(env={"A": "1"}) == ["variable B: removed"]
    assert place.refused(env={"A": "1", "B": "2", "LD_PRELOAD": "x"}) == [
        "variable LD_PRELOAD: added"
    ]
    a, b = FIRST["additionalMounts"]
    assert place.refused(additionalMounts=[a, b, {"hostPath": "/data/c"}]) == [
        "mount /data/c at /workspace/extra/c: added"
    ]
    assert place.refused(additionalMounts=[a, {**b, "readonly": False}]) == [
        "mount /data/b at /workspace/extra/b: read-only -> writable"
    ]
    assert place.refused(additionalMounts=[a, {"hostPath": "/etc", "containerPath": "b"}]) == [
        "mount /etc at /workspace/extra/b: added"
    ]
    assert len(place.refused(runtime="local", image="x", env={}, additionalMounts=[])) == 4


def test_asking_for_less_or_for_time_is_accepted(place: Place) -> None:
    a, b = FIRST["additionalMounts"]
    less: list[dict[str, Any]] = [
        {"timeout": 99_999_999},
        {"additionalMounts": [b]},
        {"additionalMounts": []},
        {"additionalMounts": [{**a, "readonly": True}, b]},
    ]
    for changes in less:
        place.write({**FIRST, **changes})
        place.check()


def test_a_file_that_goes_away_or_appears_is_a_change(place: Place) -> None:
    place.write(None)
    with pytest.raises(Untrusted, match="runtime: docker -> not set"):
        place.check()
    place.write({})
    with pytest.raises(Untrusted, match="image: agent:1 -> not set"):
        place.check()


def test_a_first_use_without_a_file_is_remembered(tmp_path: Path, state: Path) -> None:
    place = Place(tmp_path / "root", state)
    place.remember()
    place.write({"runtime": "local"})
    with pytest.raises(Untrusted, match="runtime: not set -> local"):
        place.check()
    place.write({"runtime": "tart"})
    place.check()


def test_what_is_accepted_is_what_was_read(place: Place) -> None:
    place.write({**FIRST, "image": "two"})
    shown = place.config.group("g")
    place.write({**FIRST, "image": "three"})
    place.store.accept(shown)
    with pytest.raises(Untrusted, match="image: two -> three"):
        place.check()


def test_values_of_variables_are_not_kept(place: Place) -> None:
    place.write({**FIRST, "env": {"KEY": "canary-5309"}})
    place.store.accept(place.config.group("g"))
    path = place.store.path("g")
    assert "canary" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_roots_and_installs_are_told_apart(place: Place, tmp_path: Path) -> None:
    other = Place(tmp_path / "other", place.store.state)
    other.write({"runtime": "local"})
    other.remember()
    other.check()
    group = place.config.group("g")
    digests = [Asked.of(group.file.settings, salt).env["A"] for salt in "ab" if group.file]
    assert digests[0] != digests[1]


def test_a_symlink_on_the_way_of_a_mount_that_changes_is_a_change(place: Place) -> None:
    """An agent that can write below an allowed root could lead its mount somewhere else."""
    for name in ("one", "two"):
        (place.root / name).mkdir()
    (place.root / "link").symlink_to("one")
    place.write({"additionalMounts": [{"hostPath": str(place.root / "link")}]})
    place.store.accept(place.config.group("g"))
    place.check()
    (place.root / "link").unlink()
    (place.root / "link").symlink_to("two")
    with pytest.raises(Untrusted, match=f"mount {place.root}/two at /workspace/extra/link: added"):
        place.check()
    granted = {"/workspace/extra/link": str(place.root / "one")}
    place.store.check(place.config.group("g"), granted)


@pytest.mark.parametrize(
    "damage", ["", "{}", "[]", "[" * 9000, '{"v": 2}', '{"v": 1, "runtime": null}', "\0", DAMAGED]
)
def test_a_damaged_memory_is_an_error_that_names_it(place: Place, damage: str) -> None:
    place.store.path("g").write_text(damage)
    with pytest.raises(ConfigError, match="is damaged") as error:
        place.check()
    assert "once the damaged file is removed" in str(error.value)


def test_of_many_first_uses_exactly_one_is_remembered(tmp_path: Path, state: Path) -> None:
    place = Place(tmp_path / "root", state)
    groups = []
    for number in range(8):
        place.write({"image": f"image-{number}"})
        groups.append(place.config.group("g"))
    refused: list[Untrusted] = []
    barrier = threading.Barrier(len(groups))

    def use(number: int) -> None:
        barrier.wait()
        try:
            place.store.remember(groups[number])
        except Untrusted as error:
            refused.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(len(groups))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == len(groups) - 1


NAMES = st.none() | st.sampled_from([*KNOWN, "other"])


@given(NAMES, NAMES)
def test_a_change_of_runtime_never_lowers_isolation_unseen(
    before: str | None, after: str | None
) -> None:
    known, asked = Asked(runtime=before), Asked(runtime=after)
    if before == after or list(differences(known, asked)):
        return
    assert after is not None
    best = KNOWN[before].best if before and before in KNOWN else Isolation.VM
    assert KNOWN[after].least >= best
