"""The statement ``import srmnist.CNNAE``, which names a module, finds the class."""

import sys

from srmnist.model import CNNAE

sys.modules[__name__] = CNNAE  # type: ignore[assignment]
