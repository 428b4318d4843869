"""The page's JavaScript computes what Python computes, run by Node.js.

`test_page_in_browser.py` holds the page itself to the same numbers, in a browser.
"""

import json
import shutil
import subprocess

import chainer
import cv2
import numpy as np
import pytest

import srmnist
from conftest import ROOT
from helpers.page import COMMITTED, data_of, greys, prototypes_of
from srmnist.data import embedded_mnist
from srmnist.evaluation.metrics import psnr, squared_errors
from srmnist.page import reader

NODE = shutil.which("node")
SOURCES = [ROOT / "srmnist" / "page" / name for name in ("network.js", "digit.js")]

# Reads {code, input}, runs the code among the page's pure functions, and writes what it returns.
RUNNER = """
const {sources, code, input} = JSON.parse(require("fs").readFileSync(0, "utf-8"));
const run = new Function("input", sources + "\\n" + code);
process.stdout.write(JSON.stringify(run(input)));
"""

# Images as the scripts take them.
IMAGES = """
const images = input.images.map((rows) => (
  {height: rows.length, width: rows[0].length, pixels: Float64Array.from(rows.flat())}));
"""
PIXELS = "({pixels}) => Array.from(pixels)"

pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node.js, and there is no node")


def javascript(code, images=(), **values):
    """What `code`, the body of a function, returns; it knows `images` and ``input``."""
    sources = "\n".join(path.read_text("utf-8") for path in SOURCES)
    values["images"] = [image.tolist() for image in images]
    message = json.dumps({"sources": sources, "code": IMAGES + code, "input": values})
    done = subprocess.run([NODE, "-e", RUNNER], input=message, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def data():
    """The data of the committed page."""
    return data_of(COMMITTED.read_text("utf-8"))


@pytest.fixture(scope="module")
def model():
    """The committed weights, of which the committed page is made."""
    return srmnist.load_weights(ROOT / "results" / "model.npz", srmnist.CNNAE())


def restored_by_javascript(data, images):
    code = f"""
    const layers = readLayers(input.channels, input.weights);
    return images.map((image) => restore(layers, image)).map({PIXELS});
    """
    found = javascript(code, images[:, 0], channels=data["channels"], weights=data["weights"])
    return np.array(found).reshape(images.shape)


def restored_by_chainer(model, images):
    with chainer.using_config("plain", True):
        return srmnist.restore(images, model)


def test_256_test_digits_are_restored_as_chainer_restores_them(data, model, mnist):
    degraded = srmnist.degrade(mnist[1][:256])
    found = restored_by_javascript(data, degraded)
    np.testing.assert_allclose(found, restored_by_chainer(model, degraded), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 3), (13, 40), (64, 56)])
def test_images_of_other_sizes_are_restored_as_chainer_restores_them(data, model, shape):
    images = np.random.default_rng(0).random((2, 1, *shape), np.float32)
    found = restored_by_javascript(data, images)
    np.testing.assert_allclose(found, restored_by_chainer(model, images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(28, 28), (20, 33)])
def test_every_size_degrades_as_python_degrades(shape):
    images = np.random.default_rng(0).random((8, 1, *shape), np.float32)
    images[:4, 0, :20] = embedded_mnist().test.images[:4, :20, : shape[1]].mean() / 255
    sizes = [1, 2, 3, *range(4, 29)]
    code = f"return input.sizes.map((size) => images.map((image) => degrade(image, size)).map({PIXELS}));"
    found = np.array(javascript(code, images[:, 0], sizes=sizes)).reshape(len(sizes), *images.shape)
    for size, degraded in zip(sizes, found, strict=True):
        np.testing.assert_allclose(degraded, srmnist.degrade(images, size), rtol=0, atol=1e-6)


def test_psnr_is_the_evaluation_s(mnist):
    originals = mnist[1][:20]
    degraded = srmnist.degrade(originals)
    code = "return images.slice(20).map((image, number) => psnr(image, images[number]));"
    found = javascript(code, np.concatenate([originals, degraded])[:, 0])
    np.testing.assert_allclose(found, psnr(squared_errors(degraded, originals)), rtol=1e-6)


def test_psnr_of_equal_images_is_infinite(mnist):
    assert javascript("return psnr(images[0], images[0]) === Infinity;", mnist[1][0])


def test_reader_reads_what_python_s_reader_reads(data, mnist):
    originals = mnist[1][:300]
    images = np.concatenate([originals, srmnist.degrade(originals, 7)])[:, 0]
    code = "const known = readPrototypes(input.prototypes); return images.map((image) => read(known, image));"
    found = javascript(code, images, prototypes=data["prototypes"])
    np.testing.assert_array_equal(found, reader.read(greys(images), prototypes_of(data)))


# ---- A drawing becomes an image like MNIST's

PEN = 0.09  # its width, in fractions of the board
SEVEN = [[[0.2, 0.15], [0.8, 0.15], [0.4, 0.9]], [[0.35, 0.5], [0.75, 0.5]]]


def like_mnist(strokes):
    code = "const image = likeMnist(input.strokes); return image && Array.from(image.pixels);"
    return np.array(javascript(code, strokes=strokes)).reshape(28, 28)


def placed(strokes, scale, shift):
    return [[[x * scale + shift, y * scale + shift] for x, y in stroke] for stroke in strokes]


def test_drawing_is_fitted_into_20_by_20_and_centred_by_its_mass():
    image = like_mnist(SEVEN)
    rows, columns = np.flatnonzero((image > 0.5).any(1)), np.flatnonzero((image > 0.5).any(0))
    assert np.ptp(rows) + 1 == 20
    assert np.ptp(columns) + 1 < 20
    # The centre of mass of MNIST's own digits is in the middle of pixel 14, give or take half a pixel.
    centre = (image[..., None] * np.stack(np.indices((28, 28)), -1)).sum((0, 1)) / image.sum()
    assert np.abs(centre - 14).max() <= 0.5


def test_pixels_are_those_of_the_drawing_averaged_over_each_pixel():
    """The same strokes, drawn large by OpenCV and averaged: lines, caps and scale are right."""
    fine = 64
    scale = 20 / (0.75 + PEN)  # the drawing's height, pen included, fills the box
    large = np.zeros((20 * fine, 20 * fine), np.uint8)
    for stroke in SEVEN:
        points = ((np.array(stroke) - (0.5, 0.525)) * scale + 10) * fine
        cv2.polylines(large, [points.round().astype(np.int32)], False, 255, round(PEN * scale * fine))
    expected = np.pad(large.reshape(20, fine, 20, fine).mean((1, 3)) / 255, 4)
    image = like_mnist(SEVEN)
    places = (np.roll(expected, (row - 4, column - 4), (0, 1)) for row, column in np.ndindex(9, 9))
    difference = min((np.abs(image - place) for place in places), key=np.sum)
    assert difference.mean() < 0.01
    assert difference.max() < 0.25


def test_place_and_size_of_a_drawing_do_not_matter():
    # Where the pen is not too wide for it, a smaller drawing only gets thicker strokes.
    np.testing.assert_allclose(like_mnist(SEVEN), like_mnist(placed(SEVEN, 1, 0.05)), atol=1e-9)
    small, smaller = like_mnist(placed(SEVEN, 0.5, 0.1)), like_mnist(placed(SEVEN, 0.3, 0.6))
    np.testing.assert_allclose(small, smaller, atol=1e-9)


@pytest.mark.parametrize(("height", "width"), [(0.9, 20 * PEN / (0.9 + PEN)), (0.4, 3), (0.2, 3)])
def test_strokes_of_a_small_drawing_are_not_wider_than_mnist_s(height, width):
    """The ink of a straight stroke is its length times its width, and a half disc at each end."""
    image = like_mnist([[[0.5, 0.05], [0.5, 0.05 + height]]])
    assert image.sum() == pytest.approx((20 - width) * width + np.pi * width**2 / 4, rel=0.05)


def test_tap_is_a_dot_and_nothing_is_nothing():
    dot = like_mnist([[[0.3, 0.3]]])
    assert 0 < (dot > 0.5).sum() <= 12
    assert dot.max() == 1
    assert javascript("return likeMnist([]);") is None
