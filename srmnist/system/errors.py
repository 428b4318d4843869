"""UserError, which the user can fix; `first_line` shortens any other error."""


class UserError(Exception):
    """Bad input: the message is one line that names the file or flag at fault and says what to do.

    The scripts print it on stderr and exit with status 2; in a notebook it is an exception like any other.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's message without its full stop; its class if it has no message."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
