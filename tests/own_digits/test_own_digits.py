"""Anybody's digits, whatever their size and colour, reach the network as it knows them, and come back."""

import cv2
import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from srmnist.data import to_float
from srmnist.degradation import shrink
from srmnist.system.errors import UserError
from srmnist.figures import grey_png
from srmnist.own_digits import prepare as preparation
from srmnist.own_digits import restore as restoration
from srmnist.own_digits.prepare import prepare
from srmnist.own_digits.restore import restore_files
from helpers.photos import KINDS, take_photo

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


def page(digits, columns: int) -> np.ndarray:
    """Black digits on white paper in lines, uint8."""
    cells = [np.pad(cv2.resize(digit, (84, 84)), 10) for digit in digits]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    lines = [np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    return 255 - np.vstack(lines)


def outcomes(images, weights, out, **kwds):
    return list(restore_files(images, weights, out, **kwds))


def restored_file(*args, **kwds) -> np.ndarray:
    """The pixels of what was restored."""
    (outcome,) = outcomes(*args, **kwds)
    restored, compared = outcome.files
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
    found = restored_file([write(tmp_path / "i.png", wide)], weights, tmp_path, shrink=False)
    assert found.shape == (28, 56)
    assert_same(found, expected(to_float(wide[None]), network))


def test_large_image_is_restored_in_bands_as_it_is_as_a_whole(digit, network, monkeypatch):
    monkeypatch.setattr(restoration, "_BAND", 9)
    image = to_float(digit[None])
    np.testing.assert_allclose(
        restoration._in_bands(image, network), srmnist.restore(image, network), atol=1e-6
    )


def test_black_on_white_is_recognised_and_given_back_so(digit, weights, tmp_path):
    light, dark = (write(tmp_path / f"{i}.png", image) for i, image in enumerate((digit, 255 - digit)))
    first, second = (outcome.files[0] for outcome in outcomes([light, dark], weights, tmp_path))
    white_on_black, black_on_white = (decode(path.read_bytes()).astype(int) for path in (first, second))
    assert np.abs(255 - black_on_white - white_on_black).max() <= 1


def test_what_the_picture_shows_can_be_overruled(digit, weights, tmp_path):
    image = write(tmp_path / "i.png", digit)
    by_border, light, dark = (
        restored_file([image], weights, tmp_path, invert=choice) for choice in (None, False, True)
    )
    np.testing.assert_array_equal(by_border, light)
    assert not np.array_equal(light, dark)


def test_grey_paper_becomes_black_and_ink_white(digit, tmp_path):
    grey = (25 + 0.5 * digit).round().astype(np.uint8)
    prepared = prepare(write(tmp_path / "i.png", grey))
    np.testing.assert_allclose(prepared.digits[0, 0], digit / 255, atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_photo_becomes_the_digit_that_was_written(kind, mnist, tmp_path):
    (tmp_path / "i.jpg").write_bytes(take_photo(srmnist.load_dataset().test.images[4], kind, 1))
    prepared = prepare(tmp_path / "i.jpg")
    assert prepared.digits.shape == (1, 1, 28, 28)
    assert prepared.dark == (kind != "chalk")
    errors = ((mnist[1][:10, 0] - prepared.digits[0, 0]) ** 2).mean((1, 2))
    assert errors.argmin() == 4
    assert errors[4] < 0.04


def test_small_pictures_above_10_by_10_are_made_like_mnist_s_too(digit, mnist, tmp_path):
    for image in (digit[4:24, 4:24], np.roll(digit, 4, axis=1), np.pad(255 - digit, 6, constant_values=255)):
        prepared = prepare(write(tmp_path / "i.png", image))
        assert ((prepared.digits[0] - mnist[1][0]) ** 2).mean() < 0.03


def test_small_pictures_cropped_to_the_ink_lose_none_of_it(mnist, tmp_path):
    for image in mnist[1][:30, 0]:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        cropped = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        prepared = prepare(write(tmp_path / "i.png", (cropped * 255).astype(np.uint8)))
        assert prepared.digits.shape == (1, 1, 28, 28)
        assert ((prepared.digits[0, 0] - image) ** 2).mean() < 0.05  # another digit: above 0.1


def test_several_digits_are_restored_in_lines_and_put_back_where_they_stood(weights, tmp_path):
    digits = srmnist.load_dataset().test.images[[0, 1, 2, 3, 4]]
    path = write(tmp_path / "i.png", page(digits, 3))
    (outcome,) = outcomes([path], weights, tmp_path / "out")
    restored, compared = (decode(file.read_bytes()) for file in outcome.files)
    assert outcome.digits == 5
    assert restored.shape == (2 * 28, 3 * 28)
    assert compared.shape[1] > 3 * compared.shape[0]
    prepared = prepare(path)
    back = restoration.on_page(prepared.digits, prepared.places, prepared.given.shape[1:])
    assert np.abs(back - (1 - prepared.given)).mean() < 0.03  # the ink itself: 0.1


def test_more_than_500_digits_are_refused(digit, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "MOST_DIGITS", 5)
    with pytest.raises(UserError, match="shows 6 digits; at most 5"):
        prepare(write(tmp_path / "i.png", page([digit] * 6, 3)))


def test_picture_without_ink_says_so_and_is_not_restored(weights, tmp_path):
    blank = np.random.default_rng(0).normal(200, 3, (300, 400)).astype(np.uint8)
    (outcome,) = outcomes([write(tmp_path / "blank.png", blank)], weights, tmp_path / "out")
    assert "blank.png: no digit stands out of the paper" in str(outcome.error)
    assert not (tmp_path / "out").exists()


def test_bad_picture_is_named_and_the_others_are_done(digit, weights, tmp_path):
    good, bad, last = (
        write(tmp_path / "good.png", digit),
        tmp_path / "bad.png",
        write(tmp_path / "z.bmp", digit),
    )
    bad.write_text("no image")
    found = outcomes([good, bad, last], weights, tmp_path / "out")
    assert [(outcome.number, outcome.total) for outcome in found] == [(1, 3), (2, 3), (3, 3)]
    assert [outcome.error is None for outcome in found] == [True, False, True]
    assert "bad.png" in str(found[1].error)
    names = {f"{name}_{result}.png" for name in ("good", "z") for result in ("restored", "compared")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_result_that_cannot_be_written_is_named_and_the_others_are_done(digit, weights, tmp_path):
    images = [write(tmp_path / name, digit) for name in ("a.png", "b.png")]
    (tmp_path / "out" / "a_compared.png").mkdir(parents=True)
    first, second = outcomes(images, weights, tmp_path / "out")
    assert "a_compared.png" in str(first.error)
    assert not (tmp_path / "out" / "a_restored.png").exists()
    assert [path.name for path in second.files] == ["b_restored.png", "b_compared.png"]


def test_directory_that_cannot_be_made_ends_all(digit, weights, tmp_path):
    image = write(tmp_path / "i.png", digit)
    with pytest.raises(UserError, match="--out"):
        outcomes([image, image], weights, image / "out")


def test_script_counts_on_through_a_batch_and_ends_with_status_2_if_one_is_bad(
    digit, weights, script, tmp_path
):
    folder = tmp_path / "photos"
    folder.mkdir()
    write(folder / "a.png", page([digit] * 2, 2))
    (folder / "b.jpg").write_bytes(b"")
    done = script("restore.py", "photos", "no*.png", "--model", weights, "--out", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == "[2/3] written: out/a_restored.png out/a_compared.png (2 digits)\n"
    assert done.stderr == "[1/3] no*.png: no file is called so\n[3/3] photos/b.jpg: is empty\n"
