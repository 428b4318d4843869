"""Threads divide the work, finish it, and lose no error; a fork or an interruption stops nobody for ever."""

import math
import os
import signal
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

import srmnist  # noqa: F401 – first: it makes Chainer import
from helpers.comparisons import images, make_model

threads = pytest.importorskip(
    "srmnist.engine.cpu.threads", reason="Numba is not installed: there is no engine"
)


@pytest.fixture(autouse=True)
def three_threads():
    threads.set_thread_count(3)
    yield
    threads.set_thread_count(None)


def calls_made(count):
    made = []
    threads.run(made.append, count)
    return sorted(made)


def test_every_call_is_made_exactly_once():
    assert calls_made(1) == [0]
    assert calls_made(2) == [0, 1]
    assert calls_made(50) == list(range(50))


def test_calls_run_side_by_side_in_as_many_threads_as_are_set():
    for count in (3, 16):
        threads.set_thread_count(count)
        together = threading.Barrier(count, timeout=30)
        workers = set()

        def task(i, together=together, workers=workers):
            workers.add(threading.get_ident())
            together.wait()

        threads.run(task, count)
        assert len(workers) == count


def test_no_other_thread_wakes_on_the_callers_core():
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("threads cannot be told which core to use, or there is only one")
    callers = {}

    def call_from(core):
        os.sched_setaffinity(0, {core})
        together, cores = threading.Barrier(3, timeout=30), {}

        def task(i):
            cores[threading.get_ident()] = os.sched_getaffinity(0)
            together.wait()

        threads.run(task, 3)
        del cores[threading.get_ident()]
        callers[core] = list(cores.values())

    every = os.sched_getaffinity(0)
    for core in sorted(every)[:2]:
        caller = threading.Thread(target=call_from, args=(core,))
        caller.start()
        caller.join()
    assert callers == {core: [every - {core}] * 2 for core in sorted(every)[:2]}


def test_a_slow_call_is_waited_for():
    others_done, done = threading.Event(), []

    def task(i):
        if i == 2:
            others_done.wait(30)
        done.append(i)
        if len(done) == 8:
            others_done.set()

    threads.run(task, 9)
    assert done[-1] == 2
    assert sorted(done) == list(range(9))


def test_an_error_in_any_thread_reaches_the_caller():
    def task(i):
        if i == 5:
            raise ValueError("call 5")

    with pytest.raises(ValueError, match="call 5"):
        threads.run(task, 9)
    test_every_call_is_made_exactly_once()


def test_callers_in_several_threads_get_their_own_results():
    found = {}

    def call(n):
        found[n] = calls_made(n)

    callers = [threading.Thread(target=call, args=(n,)) for n in range(20, 26)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert found == {n: list(range(n)) for n in range(20, 26)}


def test_an_interrupted_caller_leaves_its_memory_to_the_thread_that_still_writes(monkeypatch):
    """Ctrl-C while `run` waits: the memory must not be lent to the next step before the last call returns."""
    from srmnist.engine.cpu import memory

    pool = memory.Pool(keep=2)
    started, interrupted, written = (threading.Event() for _ in range(3))
    caller = threading.get_ident()
    threads.set_thread_count(2)
    genuine_wait = threads._Work.wait

    def interrupted_wait(work):
        signal.raise_signal(signal.SIGINT)
        genuine_wait(work)

    monkeypatch.setattr(threads._Work, "wait", interrupted_wait)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def step():
        block = pool.take(100)

        def task(i):
            if threading.get_ident() == caller:
                started.wait(30)
            else:
                started.set()
                interrupted.wait(30)
                block[:] = 1
                written.set()

        threads.run(task, 2)

    try:
        with pytest.raises(KeyboardInterrupt):
            step()
        lent = pool.take(100)
        lent[:] = 0
    finally:
        signal.signal(signal.SIGINT, before)
        interrupted.set()
    assert written.wait(30)
    assert (lent == 0).all()
    monkeypatch.undo()
    test_every_call_is_made_exactly_once()


@contextmanager
def another_thread_in_the_engine(monkeypatch):
    """A thread computes a step, and stays inside a compiled pass until the block is left."""
    from srmnist.engine.cpu import passes

    inside, leave = threading.Event(), threading.Event()
    genuine = passes.forward_first

    def staying(*args):
        genuine(*args)
        inside.set()
        leave.wait(60)

    monkeypatch.setattr(passes, "forward_first", staying)
    thread = threading.Thread(target=lambda: make_model(1).forward(images(1, (9, 6, 6))[0]))
    thread.start()
    assert inside.wait(60)
    monkeypatch.setattr(passes, "forward_first", genuine)
    try:
        yield
    finally:
        leave.set()
        thread.join()


def exit_status_of_child(work):
    """Fork; the child does the work and exits with 0. A child that hangs is killed and fails the test."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@needs_fork
@forks
def test_a_child_forked_while_another_thread_is_in_the_engine_computes(monkeypatch):
    model, (x, _) = make_model(2), images(2, (9, 6, 6))
    expected = model.copy(mode="copy").forward(x).array

    def work():
        np.testing.assert_array_equal(model.forward(x).array, expected)
        test_calls_run_side_by_side_in_as_many_threads_as_are_set()

    with another_thread_in_the_engine(monkeypatch):
        assert exit_status_of_child(work) == 0
    test_every_call_is_made_exactly_once()


@needs_fork
@forks
def test_a_fork_waits_until_no_thread_compiles():
    """A thread that compiles holds Numba's lock, which the child would wait for in vain."""
    from numba.core.compiler_lock import global_compiler_lock

    compiling, forked = threading.Event(), threading.Event()
    order = []

    def compile_():
        with global_compiler_lock:
            compiling.set()
            forked.wait(0.2)  # the fork must not happen meanwhile: nothing sets this
            order.append("compiled")

    thread = threading.Thread(target=compile_)
    thread.start()
    assert compiling.wait(30)

    def work():
        order.append("forked")
        with global_compiler_lock:
            assert order == ["compiled", "forked"]

    assert exit_status_of_child(work) == 0
    thread.join()


def test_a_containers_quota_limits_the_threads(tmp_path):
    assert threads._quota(tmp_path / "none") == math.inf
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert threads._quota(tmp_path) == 1.5
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "cpu.max").write_text("max 100000\n")
    assert threads._quota(tmp_path / "two") == math.inf
    one = tmp_path / "one" / "cpu"
    one.mkdir(parents=True)
    (one / "cpu.cfs_quota_us").write_text("-1\n")
    (one / "cpu.cfs_period_us").write_text("100000\n")
    assert threads._quota(tmp_path / "one") == math.inf
