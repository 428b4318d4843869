"""Interpolation: what can be done for a shrunk image without a network."""

import cv2
import numpy as np

# What OpenCV offers beside the bilinear interpolation of the degradation itself.
INTERPOLATIONS = {"nearest": cv2.INTER_NEAREST, "cubic": cv2.INTER_CUBIC, "Lanczos": cv2.INTER_LANCZOS4}


def interpolate(shrunk: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    """Enlarge images with OpenCV, the corners aligned as in `srmnist.degrade`.

    ``cv2.resize`` would align the pixels' outer edges instead and so shift what was sampled at the corners,
    by more than a pixel in 28×28; a comparison with that would flatter the network.

    Parameters
    ----------
    shrunk : ndarray of float32, shape (N, 1, h, w)
    size : (int, int)
        Height and width to enlarge to.
    interpolation : int
        One of OpenCV's ``INTER_*``.

    Returns
    -------
    ndarray of float32, shape (N, 1, *size)
        Cut to [0, 1], which cubic and Lanczos overshoot.
    """
    height, width = size
    # A pixel (x, y) of the result lies at (x, y) · (w - 1) / (width - 1) of what it is made from.
    steps = ((n - 1) / max(N - 1, 1) for n, N in zip(shrunk.shape[:1:-1], (width, height), strict=True))
    mapping = np.diag([*steps, 1.0])[:2]
    flags = interpolation | cv2.WARP_INVERSE_MAP
    enlarged = [
        cv2.warpAffine(image[0], mapping, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        for image in shrunk
    ]
    return np.clip(np.stack(enlarged)[:, None], 0, 1)
