"""The seam behind which speed lives.

`srmnist/model.py` is the article; `accelerated` on its ``forward`` lets an engine compute the same function
faster. The engine must agree with the article's functions, and steps aside where it cannot.
"""

import functools


def accelerated(forward):
    """Let an engine compute ``forward(model, x)`` where one can; otherwise run it as written."""

    @functools.wraps(forward)
    def restored(model, x):
        return forward(model, x)

    return restored
