"""A block of memory has one user at a time."""

import threading
from collections import deque

import numpy as np
import pytest

import srmnist  # noqa: F401 – first: it makes Chainer import

memory = pytest.importorskip("srmnist.engine.cpu.memory", reason="Numba is not installed: there is no engine")


def address(array):
    return array.ctypes.data


def test_memory_is_used_again_when_no_view_of_it_is_left():
    pool = memory.Pool(keep=2)
    block = pool.take(100)
    view = block[10:20].reshape(2, 5)[1]
    first = address(block)
    del block
    assert address(pool.take(100)) != first  # the view still shows it
    del view
    assert first in {address(array) for array in (pool.take(100), pool.take(100))}


def test_a_pool_keeps_no_more_than_it_may():
    pool = memory.Pool(keep=2)
    blocks = [pool.take(10) for _ in range(5)]
    blocks.clear()
    assert len(pool._free) == 2


def test_arrays_of_one_block_do_not_overlap_and_begin_on_cache_lines():
    shapes = [(3, 5), (1,), (2, 2, 2)]
    arrays = memory.Pool(keep=1).arrays(shapes)
    for i, array in enumerate(arrays):
        array[...] = i
    assert [array.shape for array in arrays] == shapes
    assert all((array == i).all() for i, array in enumerate(arrays))
    assert all(address(array) % 64 == 0 for array in arrays)


class Interposed(deque):
    """A pool's free blocks; another thread's loan dies just before look number `moment` at them."""

    def __init__(self, blocks, loan, moment):
        super().__init__(blocks)
        self.loans, self.moment = [loan], moment

    def _look(self):
        self.moment -= 1
        if self.moment < 0 and self.loans:
            thread = threading.Thread(target=self.loans.pop)
            thread.start()
            thread.join()

    def __len__(self):
        self._look()
        return super().__len__()

    def __bool__(self):
        self._look()
        return super().__len__() > 0

    def __getitem__(self, i):
        self._look()
        return super().__getitem__(i)

    def pop(self):
        self._look()
        return super().pop()


@pytest.mark.parametrize("moment", range(6))
def test_a_loan_that_dies_while_another_thread_takes_a_block_does_not_shorten_it(moment):
    pool = memory.Pool(keep=9)
    pool._free = free = Interposed([], None, 99)
    large, small = pool.take(1000), pool.take(10)
    del large
    free.loans, free.moment = [small], moment
    del small
    assert len(pool.take(1000)) == 1000


def test_every_thread_has_scratch_memory_of_its_own_and_keeps_it():
    found = {}

    def look(name):
        found[name] = [memory.scratch(50), memory.scratch(50), memory.scratch(60)]

    threads = [threading.Thread(target=look, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for first, again, larger in found.values():
        assert first is again
        assert len(larger) == 60
    everyone = [scratch for three in found.values() for scratch in (three[0], three[2])]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(everyone) for b in everyone[:i])
