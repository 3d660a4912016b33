from __future__ import annotations

import multiprocessing
import os
import subprocess
import threading
import time

import pytest

from claw_core import lifeline
from core.model_backend import child, ended, kill


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_a_forked_child_has_none_of_the_descriptors() -> None:
    reading, writing = lifeline.pipe()
    try:

        def work() -> None:
            assert not is_open(writing)
            assert not lifeline.holds(writing)
            assert is_open(reading)

        assert ended(child(work)) == 0
        assert lifeline.holds(writing)
        assert is_open(writing)
    finally:
        lifeline.close(writing)
        os.close(reading)


def test_closing_what_is_not_kept_does_nothing() -> None:
    reading, writing = lifeline.pipe()
    lifeline.close(reading)
    assert is_open(reading)
    lifeline.close(writing)
    lifeline.close(writing)
    os.close(reading)


def test_a_multiprocessing_child_that_outlives_the_owner_does_not_hold_the_lifeline() -> None:
    reading, pipe = os.pipe()
    os.set_inheritable(reading, False)

    def owner() -> None:
        os.close(reading)
        lifeline.keep(pipe)
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3,))
        worker.start()
        os.write(pipe, b"%d\n" % worker.pid if worker.pid else b"")
        time.sleep(60)

    pid = child(owner)
    os.close(pipe)
    worker = int(os.read(reading, 100))
    kill(pid)
    started = time.monotonic()
    assert os.read(reading, 1) == b""
    os.close(reading)
    os.kill(worker, 0)
    assert time.monotonic() - started < 2.5
    os.kill(worker, 9)


def test_forking_while_other_threads_open_descriptors_neither_hangs_nor_leaks() -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            reading, writing = lifeline.pipe()
            os.close(reading)
            lifeline.close(writing)

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            assert ended(child(lambda: None)) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_no_fork_comes_between_the_opening_and_the_keeping_of_a_descriptor() -> None:
    opening, forked = threading.Event(), threading.Event()
    opened: list[int] = []
    codes: list[int] = []

    def opener() -> int:
        opened.append(os.open(os.devnull, os.O_RDONLY))
        opening.set()
        forked.wait(0.2)  # which lasts the whole time where the fork has to wait
        return opened[0]

    def fork() -> None:
        opening.wait()
        pid = child(lambda: os._exit(int(is_open(opened[0]))))
        forked.set()
        codes.append(ended(pid))

    thread = threading.Thread(target=fork)
    thread.start()
    lifeline.open_kept(opener)
    thread.join()
    lifeline.close(opened[0])
    assert codes == [0]


@pytest.mark.parametrize("kept", [True, False])
def test_an_executed_child_gets_only_what_is_passed_on(kept: bool) -> None:
    reading, writing = lifeline.pipe()
    try:
        done = subprocess.run(
            ["sh", "-c", f"test -e /dev/fd/{writing}"], pass_fds=(writing,) if kept else ()
        )
        assert (done.returncode == 0) is kept
    finally:
        lifeline.close(writing)
        os.close(reading)
