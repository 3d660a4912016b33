"""Which host paths may be mounted."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claw_core.model import Mount
from claw_core.mounts import MountPolicy, NotGranted, Root, protect


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("read", "write", "outside"):
        (tmp_path / name / "inner").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def policy(place: Path) -> MountPolicy:
    return MountPolicy((Root(place / "read"), Root(place / "write", writable=True)))


def refusal(policy: MountPolicy, mount: Mount) -> str:
    with pytest.raises(NotGranted) as error:
        policy.resolve(mount)
    assert error.value.remedy
    return str(error.value)


def test_what_lies_below_a_root_is_granted(policy: MountPolicy, place: Path) -> None:
    for source in (place / "read", place / "read/inner", place / "read/../read/inner"):
        assert policy.resolve(Mount(source, "/x")).source == source.resolve()
    assert policy.resolve(Mount(place / "write/inner", "/x", writable=True)).writable


def test_both_sides_must_allow_writing(policy: MountPolicy, place: Path) -> None:
    assert "read-only" in refusal(policy, Mount(place / "read", "/x", writable=True))
    assert not policy.resolve(Mount(place / "write", "/x")).writable


def test_what_lies_outside_is_refused(policy: MountPolicy, place: Path) -> None:
    (place / "read/link").symlink_to(place / "outside")
    (place / "reader").mkdir()
    for source in (
        place / "outside",
        place,
        place / "read/../outside",
        place / "read/link",
        place / "read/link/inner",
        place / "reader",
    ):
        assert "is outside of the allowed roots" in refusal(policy, Mount(source, "/x"))


def test_a_link_into_a_root_is_granted_as_what_it_leads_to(
    policy: MountPolicy, place: Path
) -> None:
    (place / "outside/link").symlink_to(place / "read/inner")
    granted = policy.resolve(Mount(place / "outside/link", "/x"))
    assert granted.source == place / "read/inner"


def test_a_root_that_is_not_there_allows_nothing(place: Path) -> None:
    policy = MountPolicy((Root(place / "missing"),))
    (place / "missing").symlink_to("nowhere")
    assert "outside" in refusal(policy, Mount(place / "read", "/x"))


def test_the_owner_of_the_machine_authorises_what_he_types(place: Path) -> None:
    mount = Mount(place / "outside", "/x", writable=True, authorised=True)
    assert MountPolicy().resolve(mount).source == place / "outside"


@pytest.mark.parametrize(
    "name", [".ssh", ".SSH", ".aws", ".env", ".env.local", "id_rsa", "id_rsa.pub", "credentials"]
)
def test_blocked_names_are_refused_whoever_asks(name: str, place: Path) -> None:
    inside = place / "read" / name / "deeper"
    inside.mkdir(parents=True)
    for source in (inside, inside.parent):
        assert "is blocked" in refusal(MountPolicy(), Mount(source, "/x", authorised=True))


def test_a_link_does_not_hide_a_blocked_name(place: Path) -> None:
    (place / ".ssh").mkdir()
    (place / "innocent").symlink_to(".ssh")
    (place / "read/.aws").symlink_to(place / "outside")
    for source in (place / "innocent", place / "read/.aws"):
        assert "is blocked" in refusal(MountPolicy(), Mount(source, "/x", authorised=True))


def test_names_that_only_look_blocked_are_granted(place: Path) -> None:
    for name in (".environments", "ssh", "x.ssh", "credentials2", "grid_rsa"):
        (place / name).mkdir()
        MountPolicy().resolve(Mount(place / name, "/x", authorised=True))


def test_own_patterns_are_blocked_beside_the_usual_ones(place: Path) -> None:
    policy = MountPolicy(blocked=("*.pem", "pay?oll", "read/inner"))
    for name in ("a.pem", "payroll"):
        (place / name).mkdir()
        assert "is blocked" in refusal(policy, Mount(place / name, "/x", authorised=True))
    assert "is blocked" in refusal(policy, Mount(place / "read/inner", "/x", authorised=True))
    policy.resolve(Mount(place / "read", "/x", authorised=True))


def test_a_home_with_keys_in_it_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from claw_core import mounts

    home = place / "homes/me"
    (home / ".config/gcloud").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    mounts.home.cache_clear()
    try:
        for source in (home, home.parent, home / ".config"):
            assert "it contains" in refusal(MountPolicy(), Mount(source, "/x", authorised=True))
        (home / "project").mkdir()
        MountPolicy().resolve(Mount(home / "project", "/x", authorised=True))
    finally:
        mounts.home.cache_clear()


def test_no_writable_mount_contains_what_is_protected(place: Path) -> None:
    (place / "real.toml").touch()
    (place / "read/claw.toml").symlink_to(place / "real.toml")
    policy = MountPolicy(protected=protect(place / "read/claw.toml", place / "outside/.env"))
    for source in (place, place / "read", place / "outside", place / "real.toml"):
        mount = Mount(source, "/x", writable=True, authorised=True)
        assert "contains" in refusal(policy, mount)
        policy.resolve(Mount(source, "/x", authorised=True))
    policy.resolve(Mount(place / "read/inner", "/x", writable=True, authorised=True))


def test_no_writable_mount_is_part_of_what_is_protected(place: Path) -> None:
    policy = MountPolicy(protected=(str(place / "read"),))
    mount = Mount(place / "read/inner", "/x", writable=True, authorised=True)
    assert "is part of" in refusal(policy, mount)


def test_every_link_on_the_way_is_protected(place: Path) -> None:
    (place / "real").mkdir()
    (place / "real/claw.toml").touch()
    (place / "read/current").symlink_to("../real")
    (place / "outside/claw.toml").symlink_to(place / "read/current/claw.toml")
    policy = MountPolicy(protected=protect(place / "outside/claw.toml"))
    for source in (place / "outside", place / "read", place / "real"):
        assert "contains" in refusal(policy, Mount(source, "/x", writable=True, authorised=True))


@pytest.mark.parametrize("target", ["x", "", "/x/../y", "/a\0b"])
def test_a_target_that_cannot_be(target: str, place: Path) -> None:
    assert "cannot mount at" in refusal(MountPolicy(), Mount(place, target, authorised=True))


def test_a_source_that_cannot_be(place: Path) -> None:
    (place / "loop").symlink_to("loop")
    os.mkfifo(place / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(place / "socket"))
        for name in ("loop", "fifo", "socket", "missing", "a\0b", "x" * 300):
            assert "cannot mount" in refusal(
                MountPolicy(), Mount(place / name, "/x", authorised=True)
            )


PARTS = st.lists(
    st.sampled_from(["read", "write", "outside", "inner", "..", ".", "up", "across", "down"]),
    max_size=6,
)


@given(PARTS, st.booleans())
def test_nothing_outside_of_the_roots_is_ever_granted(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], writable: bool
) -> None:
    place = tmp_path_factory.getbasetemp() / "tree"
    if not place.exists():
        for name in ("read/inner", "write/inner", "outside/inner"):
            (place / name).mkdir(parents=True)
        for name, target in {"up": "..", "across": "../outside", "down": "inner"}.items():
            for folder in ("read", "write", "outside"):
                (place / folder / name).symlink_to(target)
    policy = MountPolicy((Root(place / "read"), Root(place / "write", writable=True)))
    try:
        granted = policy.resolve(Mount(place.joinpath(*parts), "/x", writable=writable))
    except NotGranted:
        return
    real = os.path.realpath(granted.source)
    assert str(granted.source) == real
    below = [name for name in ("read", "write") if f"{real}/".startswith(f"{place}/{name}/")]
    assert below
    assert not writable or below == ["write"]
