"""CNNAE: MNIST digits restored from 10×10, the Qiita article by kzkadc as a Chainer research package.

>>> from srmnist import CNNAE, degrade, load_mnist
>>> train, test = load_mnist()
>>> model = CNNAE()
>>> loss = model(degrade(test[:64]), test[:64])
"""

import sys

from srmnist import compat

compat.import_chainer()

from srmnist.checkpoint import load_weights
from srmnist.data import load_dataset, load_mnist
from srmnist.degradation import degrade
from srmnist.errors import UserError
from srmnist.figures import show_grid
from srmnist.model import CNNAE
from srmnist.restoration import restore

__version__ = "0.1.0"
__all__ = [
    "CNNAE",
    "UserError",
    "degrade",
    "load_dataset",
    "load_mnist",
    "load_weights",
    "restore",
    "show_grid",
]

# The statement `import srmnist.CNNAE` names a module; it finds the class, and srmnist.CNNAE stays the class.
sys.modules["srmnist.CNNAE"] = CNNAE  # type: ignore[assignment]
