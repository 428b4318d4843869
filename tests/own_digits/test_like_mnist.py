"""A digit of any size and pen is made as MNIST's makers made theirs."""

import cv2
import numpy as np

import srmnist
from srmnist.own_digits.like_mnist import centre_of_mass, is_like_mnist, like_mnist


def test_digit_of_mnist_that_was_enlarged_becomes_itself_again(mnist):
    originals = mnist[1][:20]
    large = [cv2.resize(image[0], None, fx=9, fy=9, interpolation=cv2.INTER_NEAREST) for image in originals]
    made = np.stack([like_mnist(image) for image in large])
    assert ((made - originals) ** 2).mean() < 0.02  # the digits themselves: 0.1


def test_shape_is_kept_in_a_box_of_20_by_20():
    for shape, box in (((300, 120), (20, 8)), ((60, 240), (5, 20)), ((7, 7), (20, 20))):
        made = like_mnist(np.ones(shape, np.float32))[0]
        rows, columns = np.flatnonzero(made.any(1)), np.flatnonzero(made.any(0))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == box


def test_centre_of_mass_comes_to_lie_where_mnist_s_does(mnist):
    for image in mnist[1][:50, 0]:
        made = like_mnist(np.pad(image.repeat(3, 0).repeat(3, 1), ((40, 0), (0, 70))))[0]
        assert made.max() == 1
        for centre in (*centre_of_mass(made), *centre_of_mass(image)):
            assert 13.5 <= centre < 14.5


def test_fine_pen_is_made_broad_enough_to_be_seen_when_it_is_shrunk():
    ring = cv2.circle(np.zeros((400, 400), np.float32), (200, 200), 180, 1, thickness=4)
    only_shrunk = cv2.resize(ring[18:382, 18:382], (20, 20), interpolation=cv2.INTER_AREA)
    assert like_mnist(ring).sum() > 3 * only_shrunk.sum()


def test_every_digit_of_mnist_is_recognised_as_one():
    for split in srmnist.load_dataset():
        assert all(is_like_mnist(image / np.float32(255)) for image in split.images[:3000])


def test_28_by_28_pixels_that_are_made_otherwise_are_not(mnist):
    digit = mnist[1][0, 0]
    assert not is_like_mnist(np.roll(digit, 4, axis=0))  # off the middle
    assert not is_like_mnist(cv2.resize(digit[4:24, 4:24], (28, 28)))  # too large
    assert not is_like_mnist(np.zeros((28, 28), np.float32))
    assert not is_like_mnist(np.pad(digit, 1))
