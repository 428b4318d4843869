"""How many threads the CPU engine may use."""

import math
from functools import cache
from pathlib import Path

import numba


@cache
def thread_count() -> int:
    """Numba's number of threads, but no more than the container may keep busy.

    Numba follows ``NUMBA_NUM_THREADS`` and the process's CPU affinity; a container's quota of CPU time
    (cgroup v1 or v2) it does not know, and more threads than that only wait for one another.
    """
    return max(1, min(numba.get_num_threads(), _quota()))


def _quota(root: Path = Path("/sys/fs/cgroup")) -> float | int:
    for read in (_quota_v2, _quota_v1):
        try:
            limit, period = read(root)
        except (OSError, ValueError):
            continue
        if limit > 0 and period > 0:
            return math.ceil(limit / period)
    return numba.get_num_threads()


def _quota_v2(root: Path) -> tuple[float, float]:
    limit, period = (root / "cpu.max").read_text().split()
    return float(limit), float(period)  # "max", no limit, is a ValueError


def _quota_v1(root: Path) -> tuple[float, float]:
    limit, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    return float(limit), float(period)
