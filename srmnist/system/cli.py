"""The common parts of the scripts: flags, the first line of output, and the exit status."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn

from srmnist.system.errors import UserError
from srmnist.system.mpiexec import launched_rank, let_first_speak
from srmnist.system.terminal import prepare_streams, tell_who_waits


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a wrong flag in one line."""

    def parse(self) -> argparse.Namespace:
        """Parse the flags; then tell a user at a terminal that Chainer is being loaded.

        A script imports Chainer after this: that takes a second, and much longer from a slow disk.
        """
        args = self.parse_args(number_gpu(sys.argv[1:]))
        tell_who_waits("loading Chainer")
        return args

    def error(self, message: str) -> NoReturn:
        let_first_speak()
        self.exit(2, f"{_speaker()}{self.prog}: {message} (see {self.prog} --help)\n")

    def add_model_flag(self) -> None:
        """``--model``, of the scripts that use trained weights."""
        self.add_argument(
            "--model",
            type=Path,
            default=Path("results/model.npz"),
            help="weights (default: results/model.npz)",
        )

    def add_out_flag(self) -> None:
        """``--out``, of the scripts that write several files."""
        self.add_argument(
            "-o", "--out", type=Path, default=Path("results"), help="directory (default: results)"
        )

    def add_gpu_flag(self) -> None:
        """``--gpu``, of the scripts that compute."""
        self.add_argument(
            "-g",
            "--gpu",
            type=int,
            nargs="?",
            const=0,
            default=-1,
            metavar="NUMBER",
            help="CUDA device (without a value: 0); negative: the CPU (default)",
        )

    def add_data_flag(self) -> None:
        """``--data``, of the scripts that use a data set."""
        self.add_argument(
            "--data",
            metavar="DIR",
            help="IDX files, plain or .gz, under the names of MNIST, EMNIST or QMNIST; if DIR holds several "
            "data sets, add the name of one: DIR/emnist-letters (default: the embedded MNIST)",
        )

    def add_test_flags(self) -> None:
        """``--data`` and ``--size``, of the scripts that degrade test images."""
        self.add_data_flag()
        self.add_argument("--size", type=positive, default=10, help="shrink to SIZE×SIZE (default: 10)")


def number_gpu(args: Sequence[str]) -> list[str]:
    """Give a ``--gpu`` without a value the value 0.

    argparse would take the next argument as the value: the file name in ``restore.py -g seven.png``.
    """
    numbered = list(args)
    for index, (flag, following) in enumerate(zip_longest(args, args[1:], fillvalue="")):
        if flag in ("-g", "--gpu") and not following.removeprefix("-").isdecimal():
            numbered[index] = "--gpu=0"
    return numbered


def positive(text: str) -> int:
    """A whole number from 1 up, as a flag's type."""
    return _whole(text, 1, 2**31 - 1)


def seed(text: str) -> int:
    """A seed that NumPy takes, as a flag's type."""
    return _whole(text, 0, 2**32 - 1)


def run(main: Callable[[], None]) -> NoReturn:
    """Run a script's main function, and end as a command should.

    A `UserError` and a full disk become one line on stderr and exit status 2. Ctrl-C becomes status 130.
    """
    prepare_streams()
    # Figures are written to files. A notebook's cell may have started the script, and the notebook's backend
    # may not be installed here.
    os.environ["MPLBACKEND"] = "agg"
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        _end(2, str(error))
    except OSError as error:
        _discard_output()
        _end(2, f"{error.filename or 'standard output'}: {error.strerror or error}")
    except MemoryError:
        _end(2, "out of memory: less data, smaller images or a smaller --batchsize need less")
    except KeyboardInterrupt:
        _end(130, "interrupted")
    sys.exit(0)


def complain(message: str) -> None:
    """Write one line on stderr."""
    line = "".join(character if character.isprintable() else " " for character in message)
    with suppress(OSError):  # nobody can be told
        sys.stderr.write(f"{_speaker()}{line}\n")


def _end(status: int, message: str) -> NoReturn:
    complain(message)
    sys.exit(status)


def _speaker() -> str:
    """The prefix of a message: the rank of this process of mpiexec, if it is not the first one."""
    return f"rank {launched_rank()}: " if launched_rank() else ""


def _discard_output() -> None:
    """Send output that could not be written to the null device; else Python's last flush would fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _whole(text: str, least: int, most: int) -> int:
    number = int(text) if text.isdecimal() and len(text) < 20 else -1
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most:,}")
    return number
