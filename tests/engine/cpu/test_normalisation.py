"""The compiled normalisation has the bits of the formulas in NumPy, with sums in float64."""

import numpy as np
import pytest

from srmnist import CNNAE
from srmnist.engine.cpu.normalisation import Normalisation

PIXELS = 9


def same(found, expected):
    return found.dtype == expected.dtype and found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("images", [1, 2, 7, 64, 1025])
def test_statistics_and_gradients_have_the_bits_of_numpys(images, train):
    random = np.random.default_rng(images)
    link = CNNAE().bn2
    channels = len(link.avg_mean)
    gamma, beta = random.normal(size=(2, channels)).astype(np.float32)
    sums = (random.normal(size=(images, 3, channels)) * 10.0 ** random.integers(-3, 4, channels)).astype("f")
    sums[:, 2] += sums[:, 1] ** 2

    k, s, q = sums.swapaxes(0, 1).astype(np.float64)
    means = k + s / PIXELS
    mean = means.mean(axis=0)
    squares = (q - s * s / PIXELS + PIXELS * (means - mean) ** 2).sum(axis=0)
    variance = np.maximum(squares, 0) / (images * PIXELS)
    inverse = 1 / np.sqrt(variance + link.eps)
    rows = np.stack([gamma * inverse, beta - mean * (gamma * inverse), mean]).astype(np.float32)
    found = Normalisation.of_batch(link, sums, np.array([PIXELS]), gamma, beta)
    assert same(found.rows, rows)

    sums = random.normal(size=(images, 2, channels)).astype(np.float32)
    of_beta, projection = sums.sum(axis=0, dtype=np.float64)
    inverse = inverse.astype(np.float32)
    of_gamma, count = projection * inverse, images * PIXELS
    scale, shift, mean = rows
    by_g = scale.astype(np.float64)
    by_a = -by_g * inverse * of_gamma / count if train else 0 * by_g
    constant = -by_g * of_beta / count - by_a * mean if train else 0 * by_g
    norm, *parameters = found.gradient(sums, images * PIXELS, link, train)
    assert same(norm, np.stack([by_g, by_a, constant, scale, shift]).astype(np.float32))
    assert same(np.stack(parameters), np.stack([of_gamma, of_beta]).astype(np.float32))


def test_statistics_of_blocks_are_those_of_their_pixels():
    """Blocks of an image differ in size, and each has sums relative to a pixel of its own."""
    random = np.random.default_rng(0)
    link = CNNAE().bn1
    channels, pixels, images = len(link.avg_mean), np.array([12, 8, 3]), 4
    activations = random.normal(3, 2, (images, pixels.sum(), channels)).astype(np.float32)
    sums = []
    for image in activations:
        for block in np.split(image, np.cumsum(pixels)[:-1]):
            deviations = block - block[0]
            sums.append([block[0], deviations.sum(axis=0), (deviations**2).sum(axis=0)])
    gamma, beta = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    found = Normalisation.of_batch(link, np.array(sums), pixels, gamma, beta)
    whole = activations.reshape(-1, channels).astype(np.float64)
    np.testing.assert_allclose(found.rows[2], whole.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.rows[0], 1 / np.sqrt(whole.var(axis=0) + link.eps), rtol=1e-6)
