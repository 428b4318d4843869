"""The settings of a run, and whether its data allow them."""

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from srmnist.data import Dataset, Split
from srmnist.degradation import check_size
from srmnist.system.errors import UserError
from srmnist.system.terminal import tell_who_waits
from srmnist.training.recipes import ARTICLE, BATCHSIZES, RECIPES

# ChainerMN's: MPI, array by array; MPI, all arrays at once (GPU only); NCCL (GPU only).
COMMUNICATORS = ("naive", "flat", "pure_nccl")


@dataclass(frozen=True)
class Settings:
    """The settings of a run; the defaults are the article's. A value that is out of range raises UserError.

    Attributes
    ----------
    epoch : int
        Passes over the training images.
    batchsize : int
        Images a step. By default 64, or 32 with the recipe "tuned".
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
        ChainerMN's communicator, for a run of several processes; `batchsize` is then that of each process,
        and `gpu` the device of the first process on each computer. None is a run of one process.
    sync_bn : bool
        Whether batch normalisation takes its statistics from the batches of all processes.
    """

    epoch: int = 10
    batchsize: int = None  # type: ignore[assignment]  # __post_init__ sets it
    seed: int = 0
    size: int = 10
    data: str | None = None
    gpu: int = -1
    plain: bool = False
    recipe: str = ARTICLE
    communicator: str | None = None
    sync_bn: bool = False

    def __post_init__(self) -> None:
        if self.batchsize is None:  # an unknown recipe is refused below
            object.__setattr__(self, "batchsize", BATCHSIZES.get(self.recipe, BATCHSIZES[ARTICLE]))
        for name, least, most in (
            ("epoch", 1, 2**31 - 1),
            ("batchsize", 1, 2**31 - 1),
            ("size", 1, 2**31 - 1),
            ("seed", 0, 2**32 - 1),  # as NumPy takes it
        ):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or not least <= value <= most:
                raise UserError(f"{name}: {value!r} is not a whole number from {least} to {most:,}")
        for name, choices in {"recipe": RECIPES, "communicator": (None, *COMMUNICATORS)}.items():
            if getattr(self, name) not in choices:
                raise UserError(f"{name}: there is no {getattr(self, name)!r}; there are {choices}")


def check_fit(settings: Settings, dataset: Dataset, processes: int) -> None:
    """Refuse settings that ask for larger batches or larger images than there are.

    Raises
    ------
    UserError
        It names the flag.
    """
    count = len(dataset.train.images)
    if settings.batchsize * processes > count:
        each = f" for each of {processes} processes" if processes > 1 else ""
        raise UserError(f"--batchsize {settings.batchsize}{each}: there are {count:,} training images")
    check_size(settings.size, dataset.train.images)


_SILENT = 1.0  # seconds
_PIECE = 1 << 20  # bytes

# The images from which batch normalisation takes its statistics.
ONE_PROCESS = "normalisation by one process"
ALL_PROCESSES = "normalisation over the images of all processes"
OWN_IMAGES = "normalisation over each process's own images"


def identity(settings: Settings, dataset: Dataset, processes: int = 1) -> dict[str, int | str]:
    """The settings that decide what every step computes: a run goes on from snapshots of the same only.

    Returns
    -------
    dict of str to int or str
        By the names of the flags; "data" is a digest of the images.
    """
    several = ALL_PROCESSES if settings.sync_bn else OWN_IMAGES
    recipe = settings.recipe
    if recipe != ARTICLE:
        # Each step of "tuned" depends on the number of all steps; the article's recipe may go on for longer.
        # The earlier forms of "tuned" computed other steps: their runs cannot go on as this one.
        steps = f"{settings.epoch} epochs, {settings.batchsize * processes} images a step"
        recipe += f", {steps}, decorrelated kernels, lower peaks of long runs"
    return {
        "seed": settings.seed,
        "batchsize": settings.batchsize,
        "size": settings.size,
        "recipe": recipe,
        "sync-bn": ONE_PROCESS if processes == 1 else several,
        "data": _digest(dataset),
    }


def _digest(dataset: Dataset) -> str:
    """A checksum of the images; if it takes long, a line says so on stderr, if that is a terminal."""
    digest = hashlib.sha256()
    due = time.monotonic() + _SILENT
    for split in dataset:
        digest.update(f"{split.images.shape}".encode())
        for piece in _pieces(split):
            digest.update(piece)
            if time.monotonic() >= due:
                due = math.inf
                size = sum(split.images.size for split in dataset)
                tell_who_waits(f"computing a checksum of {size / 1e6:,.0f} MB of images: snapshots keep it")
    return digest.hexdigest()


def _pieces(split: Split) -> Iterator[np.ndarray]:
    """The images in pieces that the processor's cache holds; Ctrl-C comes between two of them."""
    height, width = split.images.shape[1:]
    step = max(1, _PIECE // (height * width))
    for start in range(0, len(split.images), step):
        split.require_intact()
        yield np.ascontiguousarray(split.images[start : start + step])
