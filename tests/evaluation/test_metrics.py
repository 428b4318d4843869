"""The measures are the textbook's."""

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from srmnist.evaluation.metrics import nearest_labels, psnr, squared_errors, ssim


def test_squared_errors_are_one_for_each_image(mnist):
    images = mnist[1][:3]
    assert squared_errors(images, images).tolist() == [0, 0, 0]
    np.testing.assert_allclose(squared_errors(images, images + np.float32(0.5)), 0.25)


def test_psnr_of_the_degraded_images_is_the_independent_implementation_s(mnist):
    errors = squared_errors(srmnist.degrade(mnist[1]), mnist[1])
    assert psnr(errors.mean()) == pytest.approx(15.487, abs=1e-3)
    assert psnr(errors).mean() == pytest.approx(15.644, abs=1e-3)


def test_psnr_of_no_error_is_infinite(recwarn):
    assert psnr(0) == np.inf
    assert psnr(np.array([0, 0.01])).tolist() == [np.inf, 20]
    assert not recwarn.list


def test_ssim_is_one_for_equal_images_and_falls_with_noise(mnist):
    images = mnist[1][:5]
    noise = np.random.default_rng(0).normal(scale=0.1, size=images.shape).astype(np.float32)
    np.testing.assert_allclose(ssim(images, images), 1)
    little, much = (ssim(images + scale * noise, images) for scale in (1, 3))
    assert (little < 1).all()
    assert (little > much).all()


def test_ssim_is_that_of_wang_and_others():
    """The formula by hand, for images without structure: only their means remain."""
    ones = np.ones((1, 1, 16, 16), np.float32)
    c1 = 0.01**2
    expected = (2 * 0.2 * 0.6 + c1) / (0.2**2 + 0.6**2 + c1)
    np.testing.assert_allclose(ssim(0.2 * ones, 0.6 * ones), expected, rtol=1e-5)


def test_nearest_neighbour_s_label_is_given():
    rng = np.random.default_rng(0)
    neighbours = rng.random((300, 1, 6, 7), np.float32)
    images = rng.random((1100, 1, 6, 7), np.float32)  # more than are compared at a time
    labels = rng.integers(0, 10, 300).astype(np.uint8)
    distances = ((images[:, None] - neighbours[None]) ** 2).sum(axis=(2, 3, 4), dtype=np.float64)
    np.testing.assert_array_equal(
        nearest_labels(images, neighbours, labels), labels[distances.argmin(axis=1)]
    )


def test_neighbours_recognise_themselves(mnist):
    labels = srmnist.load_dataset().train.labels[:500]
    np.testing.assert_array_equal(nearest_labels(mnist[0][:500], mnist[0][:500], labels), labels)
