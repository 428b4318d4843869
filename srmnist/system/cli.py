"""What every script shares: its flags' types, and how it ends."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from srmnist.system.errors import UserError
from srmnist.system.mpiexec import launched_rank, launched_size, let_first_speak


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line."""

    def error(self, message: str) -> NoReturn:
        let_first_speak()
        self.exit(2, f"{_speaker()}{self.prog}: {message} (see {self.prog} --help)\n")

    def add_model_flags(self) -> None:
        """``--model``, ``--out`` and ``--gpu``, of the scripts that show what trained weights do."""
        results = Path("results")
        self.add_argument(
            "--model", type=Path, default=results / "model.npz", help="weights (default: results/model.npz)"
        )
        self.add_argument("-o", "--out", type=Path, default=results, help="directory (default: results)")
        self.add_argument(
            "-g", "--gpu", type=int, default=-1, help="CUDA device; negative: the CPU (default)"
        )

    def add_test_flags(self) -> None:
        """``--data`` and ``--size``, of the scripts that degrade test images."""
        self.add_argument("--data", metavar="DIR", help="IDX files to test on (default: the embedded MNIST)")
        self.add_argument("--size", type=positive, default=10, help="shrink to SIZE×SIZE (default: 10)")


def positive(text: str) -> int:
    """A whole number from 1 up, as a flag's type."""
    return _whole(text, 1, 2**31 - 1)


def seed(text: str) -> int:
    """A seed that NumPy takes, as a flag's type."""
    return _whole(text, 0, 2**32 - 1)


def resume_command() -> str:
    """The command line of this process, or of its job, with ``--resume`` instead of any it had."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-r", "--resume", nargs="?")
    others = parser.parse_known_args()[1]
    interpreter = sys.orig_argv[: -len(sys.argv)]
    if launched_size() > 1:
        interpreter = ["mpiexec", "-n", str(launched_size()), *interpreter]
    return shlex.join([*interpreter, sys.argv[0], *others, "--resume"])


def run(main: Callable[[], None]) -> NoReturn:
    """Run a script's main function, and end as a command should.

    A `UserError` and a full disk become one line on stderr and exit status 2; Ctrl-C becomes status 130.
    """
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


def _end(status: int, message: str) -> NoReturn:
    line = "".join(character if character.isprintable() else " " for character in message)
    sys.stderr.write(f"{_speaker()}{line}\n")
    sys.exit(status)


def _speaker() -> str:
    """Which process of mpiexec speaks, if it is not the first, which speaks for all."""
    return f"rank {launched_rank()}: " if launched_rank() else ""


def _discard_output() -> None:
    """Let Python's last flush of what could not be written go nowhere, instead of failing once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _whole(text: str, least: int, most: int) -> int:
    number = int(text) if text.isdecimal() and len(text) < 20 else -1
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most:,}")
    return number
