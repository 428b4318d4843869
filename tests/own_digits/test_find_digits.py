"""Ink is told from paper, light, noise and lines, and cut into digits in the order of reading."""

import cv2
import numpy as np
import pytest

from srmnist.own_digits.find_digits import find_digits
from srmnist.own_digits.ink import find_ink
from helpers.photos import KINDS, take_photo


@pytest.fixture(scope="module")
def paper():
    """Light paper with a camera's noise, 480×640."""
    noise = np.random.default_rng(0).standard_normal((480, 640))
    return (0.8 + 0.01 * noise).astype(np.float32)


def write(paper, digit, top, left, height, ink=0.2):
    """Paper with a digit of MNIST on it, its box of 20×20 as high as is said."""
    side = round(height * 28 / 20)
    cover = np.zeros_like(paper)
    cover[top : top + side, left : left + side] = cv2.resize(digit[0], (side, side))
    return paper * (1 - cover) + np.float32(ink) * cover


def found(picture):
    ink = find_ink(picture)
    return find_digits(ink) if ink else []


def ink_of(photo: bytes):
    image = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_GRAYSCALE)
    return find_ink(image / np.float32(255))


def test_digits_are_read_left_to_right_line_by_line(paper, mnist):
    places = [(60, 30), (40, 180), (70, 400), (250, 90), (280, 300), (260, 450)]
    picture = paper
    for digit, (top, left) in zip(mnist[1], places, strict=False):
        picture = write(picture, digit, top, left, 80)
    digits = found(picture)
    assert [digit.line for digit in digits] == [0, 0, 0, 1, 1, 1]
    for digit, (top, left) in zip(digits, places, strict=True):
        assert 0 <= digit.top - top < 40
        assert 0 <= digit.left - left < 60


def test_sloping_line_stays_one_line(paper, mnist):
    picture = paper
    for number in range(6):
        picture = write(picture, mnist[1][number], 40 + 30 * number, 20 + 100 * number, 70)
    assert [digit.line for digit in found(picture)] == [0] * 6


def test_broken_digit_is_one_and_two_digits_are_two(paper, mnist):
    seven = mnist[1][0].copy()
    seven[0, 13] = 0
    assert len(found(write(paper, seven, 100, 100, 200))) == 1
    assert len(found(write(write(paper, mnist[1][0], 100, 100, 90), mnist[1][1], 100, 190, 90))) == 2


def test_specks_and_what_the_border_cuts_are_no_digits(paper, mnist):
    picture = write(paper, mnist[1][0], 150, 250, 150)
    picture[30:36, 40:46] = picture[400:404, 500:510] = 0.2
    picture[:, :50] = 0.3  # the table beside the paper
    (digit,) = found(picture)
    assert digit.left > 200


@pytest.mark.parametrize("light", [1, 0.4, 1 / 16], ids=["bright", "dim", "12 bits of 16"])
@pytest.mark.parametrize(("surface", "ink"), [(0.8, 0.2), (0.5, 0.3), (0.3, 0.8), (0.0, 1.0), (0.45, 0.6)])
def test_ink_is_told_by_the_paper_around_it_not_by_being_dark(mnist, light, surface, ink):
    picture = write(np.full((300, 400), surface, np.float32), mnist[1][0], 60, 80, 120, ink) * np.float32(
        light
    )
    result = find_ink(picture)
    assert result.darker == (ink < surface)
    assert len(find_digits(result)) == 1


def test_shadow_is_no_ink(paper, mnist):
    y, x = np.mgrid[:480, :640]
    shadow = 1 - 0.4 / (1 + np.exp(-(x + 0.3 * y - 400) / 8))
    assert found((paper * shadow).astype(np.float32)) == []
    assert len(found((write(paper, mnist[1][0], 100, 200, 200) * shadow).astype(np.float32))) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_paper_without_ink_shows_no_digit(kind):
    nothing = np.zeros((28, 28), np.uint8)
    nothing[14, 14] = 1
    ink = ink_of(take_photo(nothing, kind, 9))
    assert ink is None or find_digits(ink) == []


def test_flat_picture_has_no_ink():
    for grey in (0.0, 0.5, 1.0):
        assert find_ink(np.full((60, 80), grey, np.float32)) is None


def test_lines_as_dark_as_the_ink_are_told_from_it(paper, mnist):
    picture = write(paper, mnist[1][0], 100, 200, 180)
    for row in range(30, 480, 50):
        picture[row : row + 2] = 0.3
    picture[:, 60:62] = 0.3
    (digit,) = found(picture)
    assert 150 < digit.contrast.shape[0] < 220
    assert digit.left > 200
