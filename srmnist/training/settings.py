"""What a run is made of, and whether its data and its device allow it."""

import hashlib
from dataclasses import dataclass

import numpy as np

from srmnist.data import Dataset
from srmnist.degradation import check_size
from srmnist.system.errors import UserError
from srmnist.training.recipes import ARTICLE


@dataclass(frozen=True)
class Settings:
    """What a run is made of; the defaults are the article's.

    Attributes
    ----------
    epoch : int
        Passes over the training images.
    batchsize : int
        Images a step.
    seed : int
        Fixes the initial weights and every epoch's shuffle.
    size : int
        Height and width that the images are shrunk to.
    data : str or None
        Directory of IDX files; None is the embedded MNIST.
    gpu : int
        CUDA device number; negative is the CPU.
    plain : bool
        Whether to compute with the article's Chainer functions instead of an engine.
    recipe : str
        One of `srmnist.training.recipes.RECIPES`.
    communicator : {'naive', 'flat', 'pure_nccl'} or None
        ChainerMN's communicator, for a run of several processes; `batchsize` is then each one's, and `gpu`
        that of the first on a machine. None is a run of one process.
    sync_bn : bool
        Whether batch normalisation takes its statistics from the batches of all processes.
    """

    epoch: int = 10
    batchsize: int = 64
    seed: int = 0
    size: int = 10
    data: str | None = None
    gpu: int = -1
    plain: bool = False
    recipe: str = ARTICLE
    communicator: str | None = None
    sync_bn: bool = False


def check_fit(settings: Settings, dataset: Dataset, processes: int) -> None:
    count = len(dataset.train.images)
    if settings.batchsize * processes > count:
        each = f" for each of {processes} processes" if processes > 1 else ""
        raise UserError(f"--batchsize {settings.batchsize}{each}: there are {count:,} training images")
    check_size(settings.size, dataset.train.images)


def identity(settings: Settings, dataset: Dataset, processes: int = 1) -> dict[str, int | str]:
    """The flags that decide what every step computes, and their values; of the data, a digest."""
    digest = hashlib.sha256()
    for split in dataset:
        digest.update(f"{split.images.shape}".encode())
        digest.update(np.ascontiguousarray(split.images))
    return {
        "seed": settings.seed,
        "batchsize": settings.batchsize,
        "size": settings.size,
        # What "tuned" computes in a step depends on how many there will be; "article" may go on for longer.
        "recipe": settings.recipe
        if settings.recipe == ARTICLE
        else f"{settings.recipe}, {settings.epoch} epochs, {settings.batchsize * processes} images a step",
        "data": digest.hexdigest(),
    }
