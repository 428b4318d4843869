"""The one error that is the user's to mend."""


class UserError(Exception):
    """Bad input: the message is one line that names the file or flag at fault and says what to do.

    The scripts print it on stderr and exit with status 2; in a notebook it is an exception like any other.
    """
