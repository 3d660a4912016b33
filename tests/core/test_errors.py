"""What a reader of an error gets to see."""

from __future__ import annotations

import inspect

import pytest

from claw_core import errors
from claw_core.errors import ClawError, ConfigError, DeadlineExceeded, RuntimeFault

KINDS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ClawError)
]


def test_an_error_says_where_what_and_what_to_do() -> None:
    error = RuntimeFault(
        "the engine does not answer",
        runtime="docker",
        phase="start",
        instance="claw-1-2",
        cleaned="container removed",
        remedy="start the engine",
    )
    assert str(error).split("\n") == [
        "docker start (claw-1-2): the engine does not answer",
        "  cleaned up: container removed",
        "  what to do: start the engine",
    ]


def test_an_error_without_a_place_is_its_message() -> None:
    assert str(ClawError("no")) == "no"


def test_the_place_is_filled_in_only_where_it_is_unknown() -> None:
    error = ClawError("no", phase="prepare")
    assert error.at(runtime="tart", phase="start", instance="i") is error
    assert (error.runtime, error.phase, error.instance) == ("tart", "prepare", "i")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_made_from_a_message_alone(kind: type[ClawError]) -> None:
    assert str(kind("message")) == "message"
    assert kind.__doc__


def test_exit_codes_tell_the_caller_from_the_runtime() -> None:
    assert ConfigError("x").exit_code == 2
    assert DeadlineExceeded("x").exit_code == 124
    assert RuntimeFault("x").exit_code == 125
