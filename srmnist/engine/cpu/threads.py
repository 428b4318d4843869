"""Threads that compute the slices of a batch.

A free thread takes the next slice, so on a computer with other users no thread waits for the slowest core.
The threads are Python's (compiled code runs without Python's global lock). An OpenMP loop runs at half the
speed there: it divides the work in advance, and its waiting threads keep their cores busy. The result of a
slice does not depend on the thread, so any number of threads gives the same bits.
"""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import cast

from numba import config

_chosen: int | None = None  # see set_thread_count
_CONTROL_GROUP = Path("/sys/fs/cgroup")


def thread_count() -> int:
    """Number of threads that compute.

    It is the number given to `set_thread_count`; otherwise NUMBA_NUM_THREADS, or the number of cores that the
    process may use, but at most the number that a container's quota of CPU time (cgroup version 2 or 1) keeps
    busy. Numba's own threads are not used: its threading layer and ``numba.set_num_threads`` have no effect.
    """
    if _chosen is not None:
        return _chosen
    # Numba reads the variable again now and then, and here a number below one counts as not set.
    wanted = config.NUMBA_NUM_THREADS if config.NUMBA_NUM_THREADS > 0 else config.NUMBA_DEFAULT_NUM_THREADS
    return math.ceil(min(wanted, _quota(_CONTROL_GROUP)))


def set_thread_count(count: int | None) -> None:
    """Let `count` threads compute, at least one; None restores the default of `thread_count`."""
    global _chosen
    _chosen = None if count is None else max(1, count)


@cache
def _quota(root: Path) -> float:
    """Cores that the control group under `root` may keep busy; infinity if it has no limit."""
    try:
        if (root / "cpu.max").exists():
            limit, period = (root / "cpu.max").read_text().split()
        else:
            limit, period = (
                (root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        return float(limit) / float(period) if float(limit) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # there is no such file, or its limit is the word "max"
        return math.inf


def run(task: Callable[[int], None], count: int) -> None:
    """Call ``task(i)`` for each i below `count`, on all threads; return when all calls have returned.

    The first error of a call is raised here. After an interruption (Ctrl-C), no further call is made, but
    calls may still be running: they hold the task, and with it the arrays that they write to.
    """
    if count == 1:
        return task(0)
    work = _Work(task, count)
    try:
        _team.help(work, min(thread_count(), count) - 1)
        work.take_part()
        work.wait()
    finally:
        work.close()


def run_parts(task: Callable[[int, int, int], None], total: int, parts: int) -> None:
    """Divide the numbers below `total` evenly, and call ``task(i, first, last)`` for each part, as `run`."""
    run(lambda i: task(i, total * i // parts, total * (i + 1) // parts), parts)


@cache
def _getcpu() -> Callable[[], int] | None:
    """The C library's ``sched_getcpu``, where a thread can also be told which cores to use."""
    return getattr(ctypes.CDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None


def _current_core() -> int | None:
    """The core on which the calling thread runs, if the system tells."""
    getcpu = _getcpu()
    core = -1 if getcpu is None else getcpu()
    return core if core >= 0 else None


class _Work:
    """The calls of a task, and which of them have returned."""

    def __init__(self, task: Callable[[int], None], count: int) -> None:
        self._task: Callable[[int], None] | None = task
        self._remaining: Iterator[int] = iter(range(count))
        self._unfinished = count
        self._lock = threading.Lock()
        self._finished = threading.Lock()
        self._finished.acquire()
        self._error: BaseException | None = None

    def take_part(self) -> None:
        """Make calls until all have been made."""
        while (call := self._next()) is not None:
            task, i = call
            try:
                task(i)
            except BaseException as error:
                self._returned(error)
            else:
                del call, task  # before the caller goes on: from then on only the caller holds the arrays
                self._returned()

    def _next(self) -> tuple[Callable[[int], None], int] | None:
        with self._lock:
            i = next(self._remaining, None)
            return None if i is None or self._task is None else (self._task, i)

    def _returned(self, error: BaseException | None = None) -> None:
        with self._lock:
            self._unfinished -= 1
            if error is not None:
                self._error, self._task = self._error or error, None
            if (error is not None or self._unfinished == 0) and self._finished.locked():
                self._finished.release()

    def wait(self) -> None:
        """Wait until all calls have returned, or one has failed; then raise its error."""
        self._finished.acquire()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Make no further call and drop the task: a thread that wakes late must not keep its arrays."""
        with self._lock:
            self._task = None


class _Team:
    """Threads that wait for work. The caller of `run` works too and is not one of them."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Work] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._left: int | None = None  # the core that the threads leave to the caller

    def help(self, work: _Work, helpers: int) -> None:
        """Let `helpers` threads take part; start threads if there are too few."""
        while len(self._threads) < helpers:
            thread = threading.Thread(target=self._serve, daemon=True, name="srmnist")
            thread.start()
            self._threads.append(thread)  # now it has a number: another caller may tell it which cores to use
            self._left = None
        self._leave_to_caller(_current_core())
        for _ in range(helpers):
            self._queue.put(work)

    def _leave_to_caller(self, core: int | None) -> None:
        """Keep the threads off the caller's core.

        Linux counts a sleeping core of a virtual machine as busy (``vcpu_is_preempted``). After a pause it
        would put a thread that wakes behind the caller, on the same core, for some milliseconds.
        """
        if core is None or core == self._left:
            return
        self._left = core
        others = os.sched_getaffinity(os.getpid()) - {core}
        for thread in self._threads if others else ():
            with suppress(OSError):  # a container may forbid it
                os.sched_setaffinity(cast(int, thread.native_id), others)

    def _serve(self) -> None:
        while True:
            self._queue.get().take_part()


_team = _Team()


def _renew() -> None:
    global _team
    _team = _Team()


# Threads do not survive a fork: the child starts a team of its own, with a queue that nobody holds.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
