"""Interpolation starts from the same pixels as the network does, in the same places."""

import cv2
import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from srmnist.degradation import shrink
from srmnist.evaluation.interpolation import INTERPOLATIONS, interpolate


@pytest.mark.parametrize("size", [10, (7, 10), 1])
def test_interpolation_aligns_corners_as_the_degradation_does(mnist, size):
    images = np.ascontiguousarray(mnist[1][:20, :, :, :25])
    enlarged = interpolate(shrink(images, size), (28, 25), cv2.INTER_LINEAR)
    # OpenCV rounds positions to a 32nd of a pixel.
    np.testing.assert_allclose(enlarged, srmnist.degrade(images, size), atol=1 / 32)


def test_interpolations_stay_in_range(mnist):
    for interpolation in INTERPOLATIONS.values():
        enlarged = interpolate(shrink(mnist[1][:20], 10), (28, 28), interpolation)
        assert enlarged.shape == (20, 1, 28, 28)
        assert enlarged.dtype == np.float32
        assert (enlarged.min(), enlarged.max()) == (0, 1)
