"""The degradation is the article's: shrink, then enlarge back, with F.resize_images both times."""

import tracemalloc

import numpy as np
import pytest

import srmnist
import chainer.functions as F


def test_first_test_images_are_the_reference_s(reference, mnist):
    np.testing.assert_allclose(srmnist.degrade(mnist[1][:8]), reference["degraded8"], atol=1e-6)


@pytest.mark.parametrize("size", [(10, 10), (7, 7), (14, 5)])
def test_same_numbers_as_the_author_s_two_lines(mnist, size):
    test = mnist[1][:600]  # more than is resized at a time
    test_boke = F.resize_images(test, size)
    test_boke = F.resize_images(test_boke, (28, 28)).array
    np.testing.assert_array_equal(srmnist.degrade(test, size), test_boke, strict=True)


def test_degraded_test_images_score_what_the_independent_implementation_found(mnist):
    degraded = srmnist.degrade(mnist[1])
    assert np.mean((degraded - mnist[1]) ** 2, dtype=np.float64) == pytest.approx(0.028269, abs=5e-7)


def test_one_number_stands_for_height_and_width(mnist):
    np.testing.assert_array_equal(srmnist.degrade(mnist[1][:2], 7), srmnist.degrade(mnist[1][:2], (7, 7)))


def test_images_of_any_height_width_and_channels():
    images = np.random.default_rng(0).random((3, 2, 31, 12), dtype=np.float32)
    degraded = srmnist.degrade(images)
    assert degraded.shape == images.shape
    assert degraded.dtype == np.float32
    # align_corners=True samples the corners themselves; cv2.resize does not.
    np.testing.assert_allclose(degraded[..., ::30, ::11], images[..., ::30, ::11], rtol=1e-6)


def test_originals_are_left_as_they_were_even_when_not_contiguous(mnist):
    images = mnist[1][:6].transpose(0, 1, 3, 2)
    before = images.copy()
    np.testing.assert_array_equal(srmnist.degrade(images), srmnist.degrade(before))
    np.testing.assert_array_equal(images, before)


def test_memory_is_bounded_whatever_the_number_of_images(mnist):
    images = mnist[0][:8192]
    tracemalloc.start()
    srmnist.degrade(images)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - images.nbytes < 40e6  # the result itself, and no more for it than for 512 images


@pytest.mark.parametrize(
    ("images", "size"),
    [
        (np.zeros((2, 28, 28), np.float32), 10),
        (np.zeros((2, 1, 28, 28), np.uint8), 10),
        (np.zeros((2, 1, 28, 28), np.float32), 0),
        (np.zeros((2, 1, 28, 28), np.float32), (10, -1)),
    ],
)
def test_what_cannot_be_degraded_is_refused(images, size):
    with pytest.raises(ValueError, match="must be"):
        srmnist.degrade(images, size)
