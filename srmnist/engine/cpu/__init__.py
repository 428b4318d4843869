"""The CPU engine: functions that Numba compiles, and the threads and the memory that they run with."""

import os


def _import_numba() -> None:
    """Import Numba, which fails if NUMBA_NUM_THREADS is below one.

    Only Numba's own threads need such a number, and the engine does not use them. Here it counts as not set.
    """
    name = "NUMBA_NUM_THREADS"
    chosen = os.environ.get(name, "").strip()
    refused = chosen.lstrip("-").isdecimal() and int(chosen) < 1
    if refused:
        del os.environ[name]
    try:
        import numba  # noqa: F401
    finally:
        if refused:
            os.environ[name] = chosen


_import_numba()
