"""Interpolation: ways to enlarge a shrunk image without a network."""

import cv2
import numpy as np

# The degradation itself is bilinear.
INTERPOLATIONS = {"nearest": cv2.INTER_NEAREST, "cubic": cv2.INTER_CUBIC, "Lanczos": cv2.INTER_LANCZOS4}


def interpolate(shrunk: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    """Enlarge images with OpenCV, with the corners aligned as in `srmnist.degrade`.

    ``cv2.resize`` aligns the outer edges of the pixels. It would shift images that were sampled at the
    corners, by more than a pixel in 28×28, and in a comparison the network would look better than it is.

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
        Clipped to [0, 1]: cubic and Lanczos interpolation overshoot.
    """
    height, width = size
    # The pixel (x, y) of the result lies at (x · (w - 1) / (width - 1), y · (h - 1) / (height - 1)) of the
    # shrunk image.
    steps = ((n - 1) / max(N - 1, 1) for n, N in zip(shrunk.shape[:1:-1], (width, height), strict=True))
    mapping = np.diag([*steps, 1.0])[:2]
    flags = interpolation | cv2.WARP_INVERSE_MAP
    enlarged = [
        cv2.warpAffine(image[0], mapping, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        for image in shrunk
    ]
    return np.clip(np.stack(enlarged)[:, None], 0, 1)
