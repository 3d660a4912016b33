"""Follow-ups come in their order and once; nothing is read or lost through what an agent plants."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from agents.support import run
from claw_nanoclaw.inbox import Closed, Inbox


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def inbox(tmp_path: Path, told: list[str]) -> Inbox:
    (tmp_path / "input").mkdir()
    return Inbox(tmp_path, told.append)


def leave(inbox: Inbox, name: str, text: str) -> Path:
    path = inbox.directory / "input" / name
    path.write_text(json.dumps({"type": "message", "text": text}))
    return path


def soon() -> float:
    return time.monotonic() + 0.1


def test_messages_come_once_in_the_order_of_their_names(inbox: Inbox) -> None:
    leave(inbox, "2-b.json", "second")
    leave(inbox, "1-a.json", "first")
    leave(inbox, "3-c.json.tmp", "not yet")
    assert run(inbox.wait(soon())) == ["first", "second"]
    with pytest.raises(TimeoutError):
        run(inbox.wait(soon()))
    assert os.listdir(inbox.directory / "input") == ["3-c.json.tmp"]


def test_a_message_that_comes_later_is_seen(inbox: Inbox) -> None:
    async def work() -> list[str]:
        waiting = asyncio.create_task(inbox.wait(time.monotonic() + 30))
        await asyncio.sleep(0.05)
        leave(inbox, "1.json", "late")
        return await waiting

    assert run(work()) == ["late"]


def test_the_wish_to_end_is_taken_once_and_messages_stay(inbox: Inbox) -> None:
    leave(inbox, "1.json", "too late")
    (inbox.directory / "input/_close").touch()
    with pytest.raises(Closed):
        run(inbox.wait(soon()))
    assert os.listdir(inbox.directory / "input") == ["1.json"]


def test_an_old_wish_to_end_is_forgotten_and_old_messages_are_not(inbox: Inbox) -> None:
    leave(inbox, "1.json", "earlier")
    (inbox.directory / "input/_close").touch()
    assert run(inbox.begin()) == ["earlier"]
    assert not run(inbox.closed())


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"type": "other"}',
        '{"type": "message"}',
        '{"type": "message", "text": 1}',
        '{"type": "message", "text": " "}',
        '{"type": "message", "text": "a\\u0000b"}',
    ],
    ids=lambda text: text[:30],
)
def test_what_is_no_message_stays_and_is_said_once(
    inbox: Inbox, told: list[str], text: str
) -> None:
    path = inbox.directory / "input/1.json"
    path.write_text(text)
    leave(inbox, "2.json", "good")
    assert run(inbox.wait(soon())) == ["good"]
    with pytest.raises(TimeoutError):
        run(inbox.wait(soon()))
    assert path.read_text() == text
    assert len(told) == 1
    assert "1.json was left where it is" in told[0]


def test_nothing_is_read_or_removed_through_what_an_agent_plants(
    inbox: Inbox, told: list[str], tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    secret = leave(Inbox(tmp_path, told.append), "x.json", "secret").rename(outside / "s.json")
    folder = inbox.directory / "input"
    (folder / "link.json").symlink_to(secret)
    os.mkfifo(folder / "fifo.json")
    (folder / "folder.json").mkdir()
    (folder / "_close").mkdir()
    with pytest.raises(TimeoutError):
        run(inbox.wait(soon()))
    assert len(told) == 3
    folder.rename(tmp_path / "aside")
    folder.symlink_to(outside)
    (outside / "_close").touch()
    with pytest.raises(TimeoutError):
        run(inbox.wait(soon()))
    assert sorted(os.listdir(outside)) == ["_close", "s.json"]
