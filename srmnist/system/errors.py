"""Errors in one line: the one that is the user's to mend, and what any other says first."""


class UserError(Exception):
    """Bad input: the message is one line that names the file or flag at fault and says what to do.

    The scripts print it on stderr and exit with status 2; in a notebook it is an exception like any other.
    """


def first_line(error: BaseException) -> str:
    """What an error says before its advice, or what it is if it says nothing; without a full stop."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
