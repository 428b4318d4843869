"""Work is shared, finished, and its errors are not lost."""

import math
import os
import threading
import time

import pytest

import srmnist  # noqa: F401 – first: it makes Chainer import

threads = pytest.importorskip(
    "srmnist.engine.cpu.threads", reason="Numba is not installed: there is no engine"
)


@pytest.fixture(autouse=True)
def three_threads(monkeypatch):
    monkeypatch.setattr(threads, "thread_count", lambda: 3)


def parts_done(count):
    done = []
    threads.share(lambda worker, part: done.append(part), count)
    return sorted(done)


def test_every_part_is_done_exactly_once():
    assert parts_done(1) == [0]
    assert parts_done(2) == [0, 1]
    assert parts_done(50) == list(range(50))


def test_parts_run_side_by_side_each_thread_with_its_number():
    together = threading.Barrier(3, timeout=30)
    workers = set()

    def task(worker, part):
        workers.add(worker)
        together.wait()

    threads.share(task, 3)
    assert workers == {0, 1, 2}


def test_a_slow_part_is_waited_for():
    done = []

    def task(worker, part):
        time.sleep(0.05 * part)
        done.append(part)

    threads.share(task, 3)
    assert sorted(done) == [0, 1, 2]


def test_an_error_in_any_thread_reaches_the_caller():
    def task(worker, part):
        if part == 5:
            raise ValueError("part 5")

    with pytest.raises(ValueError, match="part 5"):
        threads.share(task, 9)
    test_every_part_is_done_exactly_once()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own():
    test_every_part_is_done_exactly_once()
    child = os.fork()
    if child == 0:
        os._exit(0 if parts_done(20) == list(range(20)) else 1)
    assert os.waitpid(child, 0)[1] == 0


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
