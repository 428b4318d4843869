"""The data: MNIST, embedded, and any other data set in MNIST's IDX format."""

from srmnist.data.dataset import Dataset, Split, pick, to_float
from srmnist.data.idx import read_idx
from srmnist.data.load import load_dataset
from srmnist.data.mnist import embedded_mnist, load_mnist

__all__ = [
    "Dataset",
    "Split",
    "embedded_mnist",
    "load_dataset",
    "load_mnist",
    "pick",
    "read_idx",
    "to_float",
]
