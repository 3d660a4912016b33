"""Of runtimes that break a promise the kit names it and the hook, and ends: any check can fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claw_core.testing.contract import verdict
from claw_core.testing.contract.bench import CHECKS, Bench
from claw_core.testing.contract.case import Case
from claw_core.testing.contract.nursery import Nursery
from conformance.bad import BAD
from conformance.plugins import installed

FOUND = [
    # What the issue of the kit asks for.
    ("Hanging", "an_instance_takes_commands", "start", verdict.ENDS),
    ("Stubborn", "an_instance_takes_commands", "start", verdict.ENDS),
    ("Lying", "what_is_not_listed_does_not_live", "list_instances", None),
    ("Lying", "an_owner_may_be_killed_at_any_hook", "list_instances", None),
    ("LeakingOnCancel", "a_cancelled_command_is_gone", "execute", None),
    ("TearingDownOnce", "teardown_can_be_repeated", "teardown", None),
    ("TearingDownOnce", "what_was_never_made_can_be_torn_down", "teardown", None),
    ("TearingDownOnce", "a_reaper_may_be_killed_too", "teardown", None),
    ("CreatingLate", "a_cancelled_creation_can_be_torn_down", "prepare", None),
    ("CreatingLate", "an_owner_may_be_killed_at_any_time", "prepare", None),
    ("CreatingInSpite", "a_cancelled_creation_can_be_torn_down", "prepare", None),
    ("SwallowingCancellation", "a_cancelled_command_is_gone", "execute", None),
    ("SwallowingCancellation", "a_deadline_ends_a_run", "execute", None),
    ("RaisingWhatever", "a_command_that_cannot_start_says_why", "execute", verdict.FAULTS),
    ("Blocking", "an_instance_takes_commands", "start", verdict.ROOM),
    ("ForgettingStderr", "the_two_streams_are_apart", "execute", None),
    ("WrongExitCode", "exit_codes_are_the_commands_own", "execute", None),
    # And what else a check looks for.
    ("Exiting", "an_instance_takes_commands", "start", verdict.STAYS),
    ("EndingItsGroup", "teardown_can_be_repeated", "teardown", verdict.STAYS),
    ("Lasting", "exit_codes_are_the_commands_own", "teardown", verdict.duty("teardown")),
    ("Lasting", "a_deadline_ends_a_run", "teardown", verdict.duty("teardown")),
    ("Unready", "an_instance_takes_commands", "start", verdict.duty("start")),
    ("Absent", "it_says_what_it_offers", "describe", None),
    ("Boasting", "it_promises_no_more_than_it_can", "assess", None),
    ("Curt", "a_refusal_says_what_would_help", "assess", None),
    ("ListingGhosts", "questions_have_no_side_effects", "list_instances", None),
    ("ListingGhosts", "a_listing_is_of_one_install", "list_instances", None),
    ("Unwritable", "its_settings_can_be_written_down", "runtime", None),
    ("Amnesiac", "an_instance_takes_commands", "execute", None),
    ("OneAtATime", "commands_run_side_by_side", "execute", verdict.ENDS),
    ("Careless", "a_command_gets_its_environment", "execute", None),
    ("Sweeping", "instances_live_side_by_side", "teardown", None),
    ("LosingUploads", "files_go_in_and_come_out", "upload", None),
    ("DownloadingNothing", "what_is_not_there_is_not_downloaded", "download", None),
    ("KeepingSecrets", "a_snapshot_keeps_the_disk_and_no_secret", "snapshot", None),
    ("ClaimingTerminals", "a_terminal_is_one", "execute", None),
    ("NotEndingInput", "input_arrives_and_ends", "execute", verdict.ENDS),
    ("WaitingForInput", "input_nobody_reads_is_not_waited_for", "execute", verdict.ENDS),
    ("LosingTails", "no_tail_is_lost", "execute", None),
    ("Hoarding", "a_slow_reader_slows_the_command", "execute", None),
    ("IgnoringReaders", "a_reader_that_fails_ends_the_command", "execute", None),
    ("DeafToSignals", "a_signal_reaches_the_command", "execute", None),
    ("PythonsExitCodes", "a_signal_is_told_as_a_shell_does", "execute", None),
    ("GuessingSignals", "exit_codes_are_the_commands_own", "execute", None),
    ("EndingOnce", "cancelling_twice_changes_nothing", "execute", None),
    ("ReadingInTurn", "the_two_streams_are_apart", "execute", verdict.ENDS),
    ("Mixing", "the_two_streams_are_apart", "execute", None),
    ("BufferingInput", "words_arrive_as_they_are_said", "execute", None),
    ("TellingErrorsLater", "words_arrive_as_they_are_said", "execute", None),
    ("EndingItsNeighbours", "instances_live_side_by_side", "teardown", None),
    ("RememberingOne", "instances_live_side_by_side", "prepare", verdict.FAULTS),
    ("CancellingAll", "commands_run_side_by_side", "execute", None),
    ("DeafToResizes", "a_terminal_is_one", "execute", None),
    ("UnpackingOutside", "what_an_instance_links_to_stays_its_own", "upload", None),
    ("IgnoringReadOnly", "a_mount_is_what_it_was_asked_for", "start", None),
    ("IgnoringNetwork", "without_a_network_nothing_is_reached", "assess", None),
    ("TellingSecrets", "a_secret_is_delivered_and_nowhere_else", "execute", None),
    ("FilingSecrets", "a_secret_is_delivered_and_nowhere_else", "execute", None),
    ("TearingDownAlone", "teardowns_may_meet", "teardown", None),
    ("TearingDownOnPaper", "a_cancelled_teardown_can_be_followed_by_another", "teardown", None),
    ("LookingElsewhere", "a_stranger_can_tear_it_down", "teardown", None),
    ("Wandering", "a_stranger_can_tear_it_down", "teardown", None),
    ("Printing", "its_host_is_left_as_it_was", "start", None),
    ("Moving", "its_host_is_left_as_it_was", "prepare", None),
    ("LeavingFilesOpen", "its_host_is_left_as_it_was", "runtime", None),
    ("LeavingChildren", "its_host_is_left_as_it_was", "runtime", None),
    ("LeavingTasks", "its_host_is_left_as_it_was", "runtime", None),
    ("ListingItsOwn", "every_process_lists_the_same", "list_instances", None),
    ("ListingNothing", "every_process_lists_the_same", "list_instances", None),
    ("DyingInWords", "what_dies_with_its_owner_does", "assess", None),
    ("HidingSnapshots", "a_snapshot_is_listed_until_it_is_deleted", "list_snapshots", None),
    ("KeepingSnapshots", "a_snapshot_is_listed_until_it_is_deleted", "delete_snapshot", None),
    ("FindingNothing", "a_search_finds_what_is_on_the_disk", "search", None),
    ("StoppingOnPaper", "what_is_stopped_outlives_its_owner", "stop", None),
    ("StartingAnew", "what_is_stopped_outlives_its_owner", "start", None),
]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path / "site", monkeypatch, **BAD)
    monkeypatch.setenv("CLAW_TEST_PLACE", str(tmp_path))


@pytest.mark.parametrize(("runtime", "check", "hook", "promise"), FOUND)
def test_the_broken_promise_is_named(
    nursery: Nursery, tmp_path: Path, runtime: str, check: str, hook: str, promise: str | None
) -> None:
    named = hook, promise or verdict.promise(CHECKS[check])
    found = None
    for attempt in "123":  # on a busy machine another promise may break first, or none in time
        directory = tmp_path / attempt
        directory.mkdir()
        case = Case(
            runtime,
            directory,
            {"place": str(directory / "instances")},
            place=None,
            hook_timeout=2.0,
            check_timeout=20.0,
            late=2.0 if runtime == "CreatingLate" else 0.5,
        )
        found = Bench(case, 2, nursery).examine(check)
        if found is not None and (found.hook, found.promise) == named:
            break
    assert found is not None
    assert (found.hook, found.promise) == named, found
    assert found.seen


def test_a_creation_may_be_late_by_as_much_as_is_said(nursery: Nursery, tmp_path: Path) -> None:
    settings = {"place": str(tmp_path / "instances")}
    case = Case("CreatingInTime", tmp_path, settings, place=None)
    assert Bench(case, 2, nursery).examine("a_cancelled_creation_can_be_torn_down") is None


def test_every_check_has_been_seen_to_fail() -> None:
    assert {check for _, check, _, _ in FOUND} == set(CHECKS)
    assert {runtime for runtime, _, _, _ in FOUND} == set(BAD) - {"CreatingInTime"}


SUITE = """
import pytest
from claw_core.testing import RuntimeContract

class TestHanging(RuntimeContract):
    runtime = "Hanging"
    place = None
    hook_timeout = 0.4

    @pytest.fixture
    def settings(self, tmp_path):
        return {"place": str(tmp_path / "instances")}
"""


def test_a_whole_suite_of_a_runtime_that_hangs_ends(tmp_path: Path) -> None:
    """In a child, as a stranger would run it, without any plugin of pytest."""
    (tmp_path / "test_mine.py").write_text(SUITE)
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--basetemp={tmp_path}/base", "-W", "error"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    said = re.findall(r"^promise: every hook ends.*$", done.stdout, re.MULTILINE)
    assert all("; hook: start; what was seen: " in line for line in said)
    assert (
        f"promise: {verdict.ENDS}; hook: start; what was seen: start did not end within 0.4 s;"
        " see docs/reference/hooks.md#startinstance"
    ) in said
    assert f"{len(CHECKS)} passed" not in done.stdout
