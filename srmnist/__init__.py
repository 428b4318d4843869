"""CNNAE: MNIST digits restored from 10×10, the Qiita article by kzkadc as a Chainer research package.

Data
    load_mnist      the embedded MNIST as float32 images
    load_dataset    MNIST, or any data set in its IDX format, as published
    degrade         shrink images and enlarge them back: what the network is given

Network
    CNNAE           the article's four convolutions, a Chainer Chain
    load_weights    what training has written
    restore         what the network makes of degraded images

Pictures and errors
    show_grid       input, output and original in rows, a matplotlib figure
    UserError       what is raised where a file or a setting is at fault

Images are float32 arrays (N, 1, H, W) of intensities from 0, black, to 1, white; NumPy's or CuPy's.

>>> from srmnist import CNNAE, degrade, load_mnist, load_weights, restore, show_grid
>>> digits = load_mnist()[1][:10]
>>> model = load_weights("results/model.npz", CNNAE())
>>> degraded = degrade(digits)
>>> figure = show_grid(degraded, restore(degraded, model), digits)

``python scripts/train.py`` trains the network; its ``--help``, and that of the scripts beside it, says more.
"""

import sys

from srmnist import compat

compat.import_chainer()

from srmnist.data import load_dataset, load_mnist
from srmnist.degradation import degrade
from srmnist.figures import show_grid
from srmnist.model import CNNAE
from srmnist.restoration import restore
from srmnist.system.errors import UserError
from srmnist.weights import load_weights

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
