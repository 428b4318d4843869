"""CNNAE: MNIST digits restored from 10×10, the Qiita article by kzkadc as a Chainer research package.

Data
    load_mnist      the embedded MNIST as float images
    load_dataset    MNIST, or any data set in its IDX format, as published
    degrade         shrink images and enlarge them back: what the network is given

Network
    CNNAE           the article's four convolutions, a Chainer Chain
    load_weights    read the weights that training has written
    restore         what the network makes of degraded images

Training
    Settings        epochs, batches, seed and the other settings of a run
    train           train a CNNAE; it returns the model and its losses
    Interrupted     raised if a run is stopped; it holds what has been learned so far

Pictures and errors
    show_grid       input, output and original in rows, a matplotlib figure
    UserError       raised if a file or a setting is wrong

Images are float32 arrays (N, 1, H, W) of intensities from 0, black, to 1, white, of NumPy or CuPy.

>>> from srmnist import CNNAE, degrade, load_mnist, load_weights, restore, show_grid
>>> digits = load_mnist()[1][:10]
>>> model = load_weights("results/model.npz", CNNAE())
>>> degraded = degrade(digits)
>>> figure = show_grid(degraded, restore(degraded, model), digits)

``python scripts/train.py`` trains the network; ``--help`` of each script lists its flags.
"""

import importlib
from typing import TYPE_CHECKING, Any

from srmnist import compat

if TYPE_CHECKING:
    from srmnist.data import load_dataset, load_mnist
    from srmnist.degradation import degrade
    from srmnist.figures import show_grid
    from srmnist.model import CNNAE
    from srmnist.restoration import restore
    from srmnist.system.errors import UserError
    from srmnist.training.interruption import Interrupted
    from srmnist.training.settings import Settings
    from srmnist.training.train import train
    from srmnist.weights import load_weights

compat.prepare_chainer()

__version__ = "0.1.0"
__all__ = [
    "CNNAE",
    "Interrupted",
    "Settings",
    "UserError",
    "degrade",
    "load_dataset",
    "load_mnist",
    "load_weights",
    "restore",
    "show_grid",
    "train",
]

_MODULES = {
    "CNNAE": "model",
    "Interrupted": "training.interruption",
    "Settings": "training.settings",
    "UserError": "system.errors",
    "degrade": "degradation",
    "load_dataset": "data",
    "load_mnist": "data",
    "load_weights": "weights",
    "restore": "restoration",
    "show_grid": "figures",
    "train": "training.train",
}


def __getattr__(name: str) -> Any:
    """Import a public name, or a module, at its first use: Chainer and matplotlib take seconds to import."""
    if name in _MODULES:
        value = getattr(importlib.import_module(f"srmnist.{_MODULES[name]}"), name)
    elif name in _MODULES.values():
        value = importlib.import_module(f"srmnist.{name}")
    else:
        raise AttributeError(f"module 'srmnist' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
