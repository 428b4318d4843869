"""Standard streams and terminals: which output they can take."""

import os
import sys
from typing import TextIO

from srmnist.system.mpiexec import launched_rank

_COLUMNS = 80  # of a terminal that does not say how wide it is


def prepare_streams() -> None:
    """Make writing to the standard streams safe, for the rest of the process.

    A missing stream (``>&-``, ``pythonw``, a service) becomes the null device. A character that the stream's
    encoding does not have becomes a question mark.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # A file opened later would get the free descriptor, and C libraries would print into that file.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 – for the rest of the process
        elif stream.errors == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def tell_who_waits(line: str) -> None:
    """Write a line to a user at a terminal, who would otherwise wait without knowing what for."""
    if sys.stderr is not None and sys.stderr.isatty() and not launched_rank():
        sys.stderr.write(f"{line}\n")


def can_redraw(stream: TextIO) -> bool:
    """Whether a stream is a terminal on which lines can be erased and written anew."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def columns(stream: TextIO) -> int:
    """The number of characters in a line of a terminal."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except (OSError, ValueError):
        return _COLUMNS


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel: a cell shows figures there, and shows them anew."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
