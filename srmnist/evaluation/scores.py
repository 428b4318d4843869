"""Scores: the measures of each image of a test set, and their means."""

from dataclasses import dataclass

import numpy as np

from srmnist.data import Dataset, to_float
from srmnist.evaluation.metrics import SSIM_WINDOW, nearest_labels, psnr, squared_errors, ssim
from srmnist.system.device import device_errors, select_device

# The rows of the table that every evaluation has.
DEGRADED, RESTORED, ORIGINAL = "degraded", "restored", "original"

# Number of training images that each image is compared with. All 60,000 would take three times as long.
NEIGHBOURS = 20_000


@dataclass(frozen=True)
class Scores:
    """The measures of each image.

    Attributes
    ----------
    squared_error : ndarray of float64, shape (N,)
        Mean squared error.
    ssim : ndarray of float64, shape (N,), or None
        Structural similarity; None for images smaller than the window of SSIM.
    readable : ndarray of bool, shape (N,), or None
        Whether the nearest neighbour of the image among the training images has the same label; None
        without labels.
    """

    squared_error: np.ndarray
    ssim: np.ndarray | None
    readable: np.ndarray | None

    def summary(self, chosen: np.ndarray | slice = slice(None)) -> "Summary":
        """Means over some of the images."""
        errors = self.squared_error[chosen]
        return Summary(
            mse=float(errors.mean()),
            psnr_mean=float(psnr(errors).mean()),
            psnr_of_mse=float(psnr(errors.mean())),
            ssim=None if self.ssim is None else float(self.ssim[chosen].mean()),
            readability=None if self.readable is None else float(self.readable[chosen].mean()),
        )


@dataclass(frozen=True)
class Summary:
    """The measures of a set of images.

    Attributes
    ----------
    mse : float
        Mean squared error, intensities in [0, 1].
    psnr_mean, psnr_of_mse : float
        The mean of the images' PSNR, and the PSNR of the mean squared error, in dB.
    ssim : float or None
        Mean structural similarity.
    readability : float or None
        Fraction of digits that a 1-nearest-neighbour classifier recognises.
    """

    mse: float
    psnr_mean: float
    psnr_of_mse: float
    ssim: float | None
    readability: float | None


class Judge:
    """Measures images against the test images of a data set.

    Parameters
    ----------
    dataset : Dataset
    originals : ndarray of float32, shape (N, 1, H, W)
        The test images of `dataset`, intensities in [0, 1].
    gpu : int, default -1
        CUDA device number; negative is the CPU.

    Attributes
    ----------
    neighbours : int
        Training images that each image is compared with; 0 if the data set has no labels.
    """

    def __init__(self, dataset: Dataset, originals: np.ndarray, gpu: int = -1) -> None:
        self._originals = originals
        self._labels = dataset.test.labels
        self._gpu, self._device = gpu, select_device(gpu)
        train = dataset.train
        self.neighbours = 0
        if train.labels is not None and self._labels is not None:
            self._known_labels = train.labels[:NEIGHBOURS]
            train.require_intact()
            with device_errors(gpu):
                self._known = self._device.send(to_float(train.images[:NEIGHBOURS]))
            self.neighbours = len(self._known)

    def scores(self, images: np.ndarray) -> Scores:
        """Measure images, each against the original with the same index.

        Parameters
        ----------
        images : ndarray of float32, shape (N, 1, H, W)
            Intensities in [0, 1].

        Raises
        ------
        UserError
            If the GPU is out of memory, or fails.
        """
        readable = None
        if self.neighbours:
            with device_errors(self._gpu):
                found = nearest_labels(self._device.send(images), self._known, self._known_labels)
            readable = found == self._labels
        fits = min(images.shape[2:]) >= SSIM_WINDOW
        return Scores(
            squared_errors(images, self._originals),
            ssim(images, self._originals) if fits else None,
            readable,
        )
