"""What every script shares: its flags' types, and how it ends."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from srmnist.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def positive(text: str) -> int:
    """A whole number from 1 up, as a flag's type."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return number


def run(main: Callable[[], None]) -> NoReturn:
    """Run a script's main function: a `UserError` becomes one line on stderr and exit status 2."""
    try:
        main()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    sys.exit(0)
