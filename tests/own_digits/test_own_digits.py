"""Anybody's digits, whatever their size and colour, reach the network as it knows them."""

import cv2
import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from srmnist.data import to_float
from srmnist.degradation import shrink
from srmnist.system.errors import UserError
from srmnist.figures import grey_png
from srmnist.own_digits.restore import fit, is_black_on_white, restore_files

from conftest import decode


@pytest.fixture
def digit() -> np.ndarray:
    """A test digit, uint8 (28, 28)."""
    return srmnist.load_dataset().test.images[0]


@pytest.fixture
def network(weights):
    return srmnist.load_weights(weights, srmnist.CNNAE())


def write(path, image):
    assert cv2.imwrite(str(path), image)
    return path


def restored_file(*args, **kwds) -> np.ndarray:
    """The pixels of what was restored."""
    (restored, compared) = restore_files(*args, **kwds)
    assert compared.name.endswith("_compared.png")
    return decode(restored.read_bytes())


def expected(degraded, network) -> np.ndarray:
    return decode(grey_png(srmnist.restore(degraded, network)[0]))


def assert_same(found, wanted):
    assert np.abs(found.astype(int) - wanted).max() <= 1  # the last bit of a float may round a grey value


def test_digit_of_mnist_is_degraded_and_restored_as_in_the_article(digit, weights, network, tmp_path):
    found = restored_file([write(tmp_path / "i.png", digit)], weights, tmp_path)
    assert_same(found, expected(srmnist.degrade(to_float(digit[None])), network))


def test_ten_by_ten_pixels_are_only_enlarged(digit, weights, network, tmp_path):
    small = (shrink(to_float(digit[None]), 10)[0, 0] * 255).round().astype(np.uint8)
    found = restored_file([write(tmp_path / "i.png", small)], weights, tmp_path)
    assert_same(found, expected(srmnist.degradation.enlarge(to_float(small[None]), (28, 28)), network))


def test_image_is_restored_as_given_in_its_own_size(digit, weights, network, tmp_path):
    wide = np.concatenate([digit, digit], axis=1)
    found = restored_file([write(tmp_path / "i.png", wide)], weights, tmp_path, as_given=True)
    assert found.shape == (28, 56)
    assert_same(found, expected(to_float(wide[None]), network))


def test_black_on_white_is_recognised_and_given_back_so(digit, weights, tmp_path):
    light, dark = (write(tmp_path / f"{i}.png", image) for i, image in enumerate((digit, 255 - digit)))
    first, _, second, _ = restore_files([light, dark], weights, tmp_path)
    white_on_black, black_on_white = (decode(path.read_bytes()).astype(int) for path in (first, second))
    assert np.abs(255 - black_on_white - white_on_black).max() <= 1


def test_what_the_border_suggests_can_be_overruled(digit, weights, tmp_path):
    image = write(tmp_path / "i.png", digit)
    by_border, light, dark = (
        restored_file([image], weights, tmp_path, black_on_white=choice) for choice in (None, False, True)
    )
    np.testing.assert_array_equal(by_border, light)
    assert not np.array_equal(light, dark)


def test_background_is_what_most_of_the_border_shows(mnist):
    dark = mnist[1][:1].copy()
    dark[0, 0, 0, :9] = 1  # a stroke that leaves the picture
    assert not is_black_on_white(dark)
    assert is_black_on_white(1 - dark)


def test_grey_paper_becomes_black_and_ink_white(mnist):
    grey = 0.1 + 0.5 * mnist[1][:1]
    np.testing.assert_allclose(fit(grey, 28), mnist[1][:1], atol=1e-6)


def test_large_picture_is_averaged_to_28_by_28(mnist):
    large = mnist[1][:1].repeat(7, axis=2).repeat(7, axis=3)
    np.testing.assert_allclose(fit(large, 28), mnist[1][:1], atol=1e-6)


def test_oblong_picture_keeps_its_proportions(mnist):
    oblong = mnist[1][:1, :, :, 4:24]  # the digits lie in the middle 20 columns
    np.testing.assert_allclose(fit(oblong, 28), mnist[1][:1], atol=1e-6)


def test_blank_picture_stays_blank():
    for grey in (0.0, 0.3):
        blank = np.full((1, 1, 40, 30), grey, np.float32)
        np.testing.assert_array_equal(fit(blank, 28), np.zeros((1, 1, 28, 28)))


def test_what_was_given_degraded_and_restored_stand_side_by_side(digit, weights, tmp_path):
    _, compared = restore_files([write(tmp_path / "seven.png", digit)], weights, tmp_path)
    height, width, _ = decode(compared.read_bytes()).shape
    assert width > 2.5 * height


def test_one_bad_image_leaves_nothing_written(digit, weights, tmp_path):
    good, bad = write(tmp_path / "good.png", digit), tmp_path / "bad.png"
    bad.write_text("no image")
    with pytest.raises(UserError, match=r"bad\.png"):
        restore_files([good, bad], weights, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_images_of_one_name_are_refused(digit, weights, tmp_path):
    images = [write(tmp_path / name, digit) for name in ("seven.png", "seven.bmp")]
    with pytest.raises(UserError, match=r"seven\.bmp.*seven\.png"):
        restore_files(images, weights, tmp_path / "out")
