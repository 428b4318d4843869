"""A batch shared among threads.

A slice of the batch is the unit of work; whichever thread is free takes the next. On a machine that others
use as well that is the difference between waiting for the slowest core and not, which is why these are
Python's threads (the kernels run without its lock) and not an OpenMP loop, whose equal shares and spinning
barriers lose half the speed there. What a slice computes does not depend on the thread that does it, so
results are the same, bit for bit, for any number of threads.
"""

import math
import os
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numba


def thread_count() -> int:
    """Numba's number of threads, but no more than the container may keep busy.

    Numba follows ``NUMBA_NUM_THREADS``, ``numba.set_num_threads`` and the process's CPU affinity; a
    container's quota of CPU time (cgroup version 2 or 1) it does not know, and more threads than that only
    wait for one another.
    """
    return math.ceil(min(numba.get_num_threads(), _quota(Path("/sys/fs/cgroup"))))


@cache
def _quota(root: Path) -> float:
    """CPUs that the control group under `root` may keep busy; infinity where nothing limits it."""
    try:
        if (root / "cpu.max").exists():
            limit, period = (root / "cpu.max").read_text().split()
        else:
            limit, period = (
                (root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        return float(limit) / float(period) if float(limit) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # no such file; or its limit is the word "max"
        return math.inf


def share(task: Callable[[int, int], None], count: int) -> None:
    """Call ``task(worker, part)`` for each part below `count`, on all threads; return when all are done.

    `worker` numbers the thread, from 0 to ``thread_count() - 1``.
    """
    threads = thread_count()
    if threads == 1 or count == 1:
        for part in range(count):
            task(0, part)
        return
    run = _Run(task, count)
    team = _team(threads)
    team.start(run)
    run.work(0)
    run.wait()
    team.start(None)


class _Run:
    def __init__(self, task: Callable[[int, int], None], count: int) -> None:
        self._task: Callable[[int, int], None] | None = task
        self._parts: Iterator[int] = iter(range(count))
        self._unfinished = count
        self._lock = threading.Lock()
        self._finished = threading.Lock()
        self._finished.acquire()
        self._error: BaseException | None = None

    def work(self, worker: int) -> None:
        while True:
            with self._lock:
                part = next(self._parts, None)
            if part is None:
                return
            try:
                self._task(worker, part)
            except BaseException as error:
                self._error = error
            with self._lock:
                self._unfinished -= 1
                if self._unfinished == 0:
                    self._finished.release()

    def wait(self) -> None:
        """Until the last part is done; a thread that woke too late to take one is not waited for."""
        self._finished.acquire()
        self._task = None  # a thread that wakes late may hold this run a little longer, but not its arrays
        if self._error is not None:
            raise self._error


class _Team:
    """Threads that wait for work. The caller is worker 0 and not among them."""

    def __init__(self, size: int) -> None:
        self._run: _Run | None = None
        self._wake = [threading.Lock() for _ in range(1, size)]
        for worker, wake in enumerate(self._wake, 1):
            wake.acquire()
            threading.Thread(target=self._loop, args=(worker, wake), daemon=True, name="srmnist").start()

    def start(self, run: _Run | None) -> None:
        """Wake the threads for a run, or let go of the last one, whose task keeps its arrays alive."""
        self._run = run
        if run is not None:
            for wake in self._wake:
                if wake.locked():
                    wake.release()

    def _loop(self, worker: int, wake: threading.Lock) -> None:
        while True:
            wake.acquire()
            self._join(worker)

    def _join(self, worker: int) -> None:
        run = self._run
        if run is not None:
            run.work(worker)


@cache
def _team(size: int) -> _Team:
    return _Team(size)


# Threads do not survive a fork: the child starts a team of its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_team.cache_clear)
