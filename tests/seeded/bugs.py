"""One line of the code wrong at a time, and the test that must fail because of it."""

from __future__ import annotations

from typing import Final

import attrs


@attrs.frozen
class Bug:
    """A bug that can be put into the code.

    Attributes:
        name: what is wrong with it.
        file: where, below `packages`.
        old: the code as it is; it is there once.
        new: the code with the bug.
        test: the test that must fail, below `tests`.
    """

    name: str
    file: str
    old: str
    new: str
    test: str

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


CORE: Final = "core/src/claw_core"
DOCKER: Final = "runtime-docker/src/claw_runtime_docker"

BUGS: Final = (
    Bug(
        "the intent is not synced",
        f"{CORE}/ledger.py",
        "                durable.sync_data(descriptor)\n                failpoints.hit(_POST_SYNC)",
        "                failpoints.hit(_POST_SYNC)",
        "core/test_ledger.py::test_everything_is_durable_before_it_counts",
    ),
    Bug(
        "the name of the entry is not synced",
        f"{CORE}/ledger.py",
        "                durable.sync_directory(self.directory)\n",
        "",
        "core/test_ledger.py::test_everything_is_durable_before_it_counts",
    ),
    Bug(
        "space for notes is not reserved",
        f"{CORE}/ledger.py",
        "                durable.preallocate(descriptor, RESERVED)\n",
        "",
        "core/test_ledger.py::test_everything_is_durable_before_it_counts",
    ),
    Bug(
        "facts are not synced",
        f"{CORE}/lease.py",
        "        if sync:\n            durable.sync_data(descriptor)",
        "",
        "core/test_ledger.py::test_everything_is_durable_before_it_counts",
    ),
    Bug(
        "an identity is used again",
        f"{CORE}/ledger.py",
        "                _require_absent(path)\n",
        "",
        "core/test_ledger.py::test_an_identity_in_use_is_refused",
    ),
    Bug(
        "a look shows what is gone",
        f"{CORE}/ledger.py",
        "                    if vfs.fstat(descriptor).st_nlink == 0:",
        "                    if False:",
        "core/test_ledger.py::test_a_look_does_not_show_what_goes_meanwhile",
    ),
    Bug(
        "a torn note is written on",
        f"{CORE}/lease.py",
        '(b"\\n" if self._torn else b"") + ',
        "",
        "core/test_ledger.py::test_torn_and_nul_filled_lines_are_skipped_and_not_written_into",
    ),
    Bug(
        "the lease is not locked",
        f"{CORE}/locks.py",
        "            vfs.flock(descriptor, fcntl.LOCK_EX)\n",
        "",
        "core/test_ledger.py::test_the_lease_ends_with_its_owner",
    ),
    Bug(
        "a lease is claimed without its lock",
        f"{CORE}/locks.py",
        "        vfs.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n        mine",
        "        mine",
        "core/test_ledger.py::test_nobody_claims_the_live_instance_of_their_own_process",
    ),
    Bug(
        "the op-lock is not locked",
        f"{CORE}/locks.py",
        "        vfs.flock(op, fcntl.LOCK_EX | fcntl.LOCK_NB)\n        failpoints",
        "        failpoints",
        "core/test_ledger.py::test_a_child_in_flight_keeps_the_instance_from_being_claimed",
    ),
    Bug(
        "a claim ignores the op-lock",
        f"{CORE}/ledger.py",
        "                op = locks.lock_op(path)\n",
        "",
        "core/test_reaper.py::test_a_child_in_flight_is_waited_for",
    ),
    Bug(
        "a claim that fails keeps the op-lock",
        f"{CORE}/ledger.py",
        "                if op is not None:\n                    lifeline.close(op)\n",
        "",
        "core/test_ledger.py::test_a_claim_that_fails_lets_go",
    ),
    Bug(
        "a fork keeps the lease",
        f"{CORE}/lifeline.py",
        "            os.close(descriptor)\n    _kept.clear()",
        "            pass\n    _kept.clear()",
        "core/test_ledger.py::test_a_fork_that_outlives_the_owner_keeps_neither_lease_nor_op_lock",
    ),
    Bug(
        "the absence is not verified",
        f"{CORE}/teardown.py",
        "    if instance.name in present:",
        "    if False:",
        "core/test_session.py::test_a_teardown_that_lies_is_quarantined_and_said",
    ),
    Bug(
        "the settle time is left out",
        f"{CORE}/teardown.py",
        "    if settle <= 0:",
        "    if True:",
        "core/test_reaper.py::test_limbo_outlasts_a_reaper_and_a_later_one_carries_on",
    ),
    Bug(
        "an appearance does not restart the settle time",
        f"{CORE}/teardown.py",
        " and not appeared",
        "",
        "core/test_reaper.py::test_a_creation_that_comes_to_light_late_is_caught",
    ),
    Bug(
        "a reboot does not restart the settle time",
        f"{CORE}/teardown.py",
        'lease.detail.get("boot") == boot',
        "True",
        "core/test_reaper.py::test_limbo_counts_anew_after_a_reboot_and_after_an_appearance",
    ),
    Bug(
        "the settle time goes on while the machine sleeps",
        f"{CORE}/teardown.py",
        "    now, boot = vfs.awake_time(), vfs.boot_id()",
        "    now, boot = vfs.boottime(), vfs.boot_id()",
        "core/test_reaper.py::test_limbo_does_not_count_a_sleep_of_the_machine[boottime]",
    ),
    Bug(
        "a settle time may begin in the future",
        f"{CORE}/teardown.py",
        " or since > now:",
        ":",
        "core/test_reaper.py::test_limbo_counts_anew_after_a_reboot_and_after_an_appearance",
    ),
    Bug(
        "an entry that cannot be removed counts as gone",
        f"{CORE}/teardown.py",
        "        except LedgerUnavailable as error:\n            return Outcome(",
        "        except LedgerUnavailable as error:\n            print(",
        "properties/test_simulation.py"
        "::test_nothing_leaks_whatever_happens_at_any_system_call[server-eio]",
    ),
    Bug(
        "the lease outlives a quarantine",
        f"{CORE}/teardown.py",
        "    with lease:\n",
        "    if True:\n",
        "core/test_reaper.py::test_the_owners_own_destruction_ends_the_lease_whatever_comes",
    ),
    Bug(
        "what is kept on purpose is reaped",
        f"{CORE}/reaper.py",
        "                    if name not in turn.chosen and held(lease.state, lease.detail):",
        "                    if False:",
        "core/test_reaper.py::test_a_kept_instance_is_skipped_until_its_time_is_over",
    ),
    Bug(
        "a reaper does not wait for the settle time",
        f"{CORE}/reaper.py",
        "            patient=True,\n",
        "",
        "core/test_reaper.py::test_a_creation_that_comes_to_light_late_is_caught",
    ),
    Bug(
        "the teardown is not shielded",
        f"{CORE}/session.py",
        "                await persist(step(), patience)",
        "                await step()",
        "core/test_session.py::test_any_number_of_cancellations_cannot_stop_a_teardown",
    ),
    Bug(
        "a second cancellation is not withstood",
        f"{CORE}/tasks.py",
        "            cancelled = error\n",
        "            raise\n",
        "core/test_session.py::test_any_number_of_cancellations_cannot_stop_a_teardown",
    ),
    Bug(
        "a creation that was cut short counts as over",
        f"{CORE}/session.py",
        "            settle=0.0 if self._created else self.route.assessment.settle,",
        "            settle=0.0,",
        "core/test_session.py::test_a_creation_cut_short_in_a_server_stays_in_limbo",
    ),
    Bug(
        "a cancelled acquisition loses its lease",
        f"{CORE}/session.py",
        "            await in_thread(self._acquire)\n",
        "            self._lease = await in_thread(self._ledger.acquire, self._intent)\n",
        "properties/test_simulation.py"
        "::test_a_cancellation_at_any_system_call_leaves_nothing_while_the_router_lives_on[server]",
    ),
    Bug(
        "what a live owner makes is adopted",
        f"{CORE}/reaper.py",
        "        return [one for name, one in sorted(found.items()) if name not in claimed]",
        "        return [one for name, one in sorted(found.items())]",
        "properties/test_simulation.py"
        "::test_what_is_ours_and_has_no_entry_is_adopted_beside_all_others[server]",
    ),
    Bug(
        "what belongs to others is adopted",
        f"{CORE}/reaper.py",
        '                if name.startswith(f"{INSTANCE_PREFIX}-{install}-"):\n',
        "                if True:\n",
        "core/test_reaper.py::test_unclaimed_instances_are_planned_and_adopted",
    ),
    Bug(
        "a lock is taken on a file that is gone",
        f"{CORE}/locks.py",
        "        if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino) and mine.st_nlink:",
        "        if True:",
        "core/test_ledger.py::test_a_lock_on_a_file_that_was_replaced_does_not_count",
    ),
    Bug(
        "a lock is let go before its file is removed",
        f"{CORE}/locks.py",
        "    with contextlib.suppress(OSError):\n        vfs.unlink(path)\n"
        "    if descriptor is not None:\n        lifeline.close(descriptor)\n",
        "    if descriptor is not None:\n        lifeline.close(descriptor)\n"
        "    with contextlib.suppress(OSError):\n        vfs.unlink(path)\n",
        "core/test_ledger.py::test_a_file_is_removed_before_its_lock_is_let_go",
    ),
    Bug(
        "a temporary file that was swept is used",
        f"{CORE}/locks.py",
        "            if vfs.fstat(descriptor).st_nlink:",
        "            if True:",
        "core/test_ledger.py::test_a_temporary_file_that_was_swept_is_made_again",
    ),
    Bug(
        "a fork unlocks what its parent holds",
        f"{CORE}/lifeline.py",
        "            os.close(descriptor)\n    _kept.clear()",
        "            __import__('fcntl').flock(descriptor, 8)\n"
        "            os.close(descriptor)\n    _kept.clear()",
        "core/test_ledger.py::test_a_fork_takes_nothing_from_its_parent",
    ),
    Bug(
        "a fork comes between the opening and the keeping",
        f"{CORE}/lifeline.py",
        "    with _lock:\n        descriptor = opener()\n        _kept.add",
        "    descriptor = opener()\n    with _lock:\n        _kept.add",
        "core/test_lifeline.py"
        "::test_no_fork_comes_between_the_opening_and_the_keeping_of_a_descriptor",
    ),
    Bug(
        "a write in parts goes on in the wrong place",
        f"{CORE}/lease.py",
        "            self._end += count",
        "            self._end += len(line)",
        "core/test_ledger.py::test_what_is_written_in_parts_is_whole",
    ),
    Bug(
        "a reaper does not wait for a death that is under way",
        f"{CORE}/reaper.py",
        "(entry.alive and owner is not None and entry.owner == owner)",
        "False",
        "properties/test_simulation.py::test_a_warden_does_not_rely_on_a_reaper_that_is_at_work",
    ),
    Bug(
        "a warden goes on before it watches",
        f"{CORE}/warden.py",
        "        async with self._starting:\n",
        "        if True:\n",
        "core/test_warden.py::test_it_watches_when_any_of_those_who_start_it_goes_on",
    ),
    Bug(
        "the waiter stays a child of its owner",
        f"{CORE}/waiter.py",
        "        if os.fork():\n            os._exit(0)\n",
        "",
        "core/test_warden.py::test_whoever_has_handed_over_has_no_child_any_more",
    ),
    Bug(
        "the reaper after a death is not told whose",
        f"{CORE}/waiter.py",
        '        self.command += ["--owner", self.owner]\n',
        "",
        "core/test_warden.py::test_a_reaper_after_a_death_is_told_whose",
    ),
    Bug(
        "a reaper that hangs is not killed",
        f"{CORE}/waiter.py",
        "            os.kill(self.reaper, signal.SIGKILL)\n",
        "            pass\n",
        "core/test_warden.py::test_a_reaper_that_does_not_end_is_killed",
    ),
    Bug(
        "two enter the queue for capacity at a time",
        f"{CORE}/slots.py",
        "                    fcntl.flock(entrance, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "                    pass\n",
        "core/test_slots.py::test_nobody_enters_beside_another",
    ),
    Bug(
        "the warden hears what ends its owner",
        f"{CORE}/waiter.py",
        "        signal.signal(number, signal.SIG_IGN)",
        "        pass",
        "core/test_warden.py::test_the_warden_is_deaf_to_what_ends_its_owner",
    ),
    Bug(
        "the warden misses its owner's death",
        f"{CORE}/waiter.py",
        "                    return True\n",
        "                    return False\n",
        "core/test_warden.py::test_a_killed_owners_instances_are_reaped",
    ),
    Bug(
        "what failed is not tried again while the owner lives",
        f"{CORE}/waiter.py",
        "            self.due = min(self.due, now + self._pause)\n",
        "",
        "core/test_warden.py::test_a_reaper_that_dies_is_replaced_while_the_owner_lives",
    ),
    Bug(
        "a fork keeps the warden's lifeline",
        f"{CORE}/warden.py",
        "lifeline.pipe()",
        "os.pipe()",
        "core/test_warden.py::test_a_clean_end_reaps_nothing_and_leaves_no_process",
    ),
    Bug(
        "the fence holds nothing",
        f"{DOCKER}/fence.py",
        "        if await _hold(engine, name, image):",
        "        if True:",
        "runtime_docker/test_failures.py::test_a_creation_that_does_not_end_is_told",
    ),
    Bug(
        "the fence is lifted at once",
        f"{DOCKER}/fence.py",
        "            await asyncio.sleep(GRACE)\n",
        "",
        "runtime_docker/test_failures.py::test_a_name_is_held_against_a_creation_that_nobody_waits_for",
    ),
    Bug(
        "an unknown creation is not fenced",
        f"{DOCKER}/runtime.py",
        "        if live is None or live.unknown:",
        "        if live is None:",
        "runtime_docker/test_failures.py::test_a_name_is_held_against_a_creation_that_nobody_waits_for",
    ),
    Bug(
        "a creation is abandoned",
        f"{DOCKER}/runtime.py",
        "            await answered(_create(engine, live, instance.name, body))\n        except",
        "            await _create(engine, live, instance.name, body)\n        except",
        "runtime_docker/test_failures.py::test_a_cancelled_creation_is_waited_for",
    ),
    Bug(
        "a container does not hang on its owner",
        f"{DOCKER}/container.py",
        '        "StdinOnce": True,',
        '        "StdinOnce": False,',
        "runtime_docker/test_lifecycle.py::test_a_container_ends_with_its_owner_without_any_reaper",
    ),
    Bug(
        "a container that has ended stays",
        f"{DOCKER}/container.py",
        '            "AutoRemove": not spec.persistent,',
        '            "AutoRemove": False,',
        "runtime_docker/test_lifecycle.py::test_a_container_ends_with_its_owner_without_any_reaper",
    ),
    Bug(
        "what is kept is not stopped",
        f"{CORE}/keeping.py",
        "        await relay.stop(instance)",
        "        pass",
        "core/test_kept_kills.py::test_a_kill_of_the_owner_leaves_what_is_kept_or_nothing",
    ),
    Bug(
        "what is gone by half is taken for kept",
        f"{CORE}/teardown.py",
        '        if lease.state == "held":',
        "        if False:",
        "core/test_kept_kills.py"
        "::test_a_kill_of_who_deletes_what_is_kept_is_followed_by_any_reaper",
    ),
    Bug(
        "a snapshot is not noted before it exists",
        f"{CORE}/keeping.py",
        "    await in_thread(_note, state, known)\n    failpoints.hit(_INTENDED)",
        "    failpoints.hit(_INTENDED)",
        "core/test_kept_kills.py::test_a_kill_of_the_owner_leaves_what_is_kept_or_nothing",
    ),
)
