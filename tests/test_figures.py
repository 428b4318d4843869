"""The figures show what the model really does with the images that they claim to show."""

import warnings

import matplotlib
import matplotlib.figure
import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from chainer.backends import cuda
from srmnist.figures import draw_degradation, draw_model, draw_side_by_side, draw_sizes, grey_png, png
from srmnist.system import fonts
from srmnist.training.trainer import initial_model

from conftest import decode, run_python


@pytest.fixture(scope="module")
def model() -> srmnist.CNNAE:
    return initial_model(0)


def test_grid_holds_input_output_and_original(mnist):
    inputs, outputs, originals = mnist[1][:15].reshape(3, 5, 1, 28, 28)
    figure = srmnist.show_grid(inputs, outputs, originals)
    assert isinstance(figure, matplotlib.figure.Figure)
    drawn = [ax.images[0].get_array() for ax in figure.axes]
    for found, image in zip(drawn, mnist[1][:15], strict=True):
        np.testing.assert_array_equal(found, image[0])
    assert [ax.get_ylabel() for ax in figure.axes[::5]] == ["input", "output", "original"]


def test_grid_of_images_without_originals_has_two_rows(mnist):
    figure = srmnist.show_grid(mnist[1][:3], mnist[1][3:6])
    assert [ax.get_ylabel() for ax in figure.axes[::3]] == ["input", "output"]


def test_grid_is_shown_by_a_notebook_and_chooses_no_backend():
    done = run_python(
        "-c",
        "import sys, srmnist\n"
        "images = srmnist.load_mnist()[1][:2]\n"
        "figure = srmnist.show_grid(images, images)\n"
        "assert figure._repr_png_().startswith(b'\\x89PNG')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_degradation_is_drawn_beside_the_original(mnist):
    original = mnist[1][0]
    degraded = srmnist.degrade(mnist[1][:1])[0]
    left, right = draw_degradation(original, degraded, 10).axes
    np.testing.assert_array_equal(left.images[0].get_array(), original[0])
    np.testing.assert_array_equal(right.images[0].get_array(), degraded[0])
    assert right.get_title() == "degraded: 28×28 → 10×10 → 28×28"


def test_architecture_is_labelled_with_its_layers_and_shapes(model, mnist):
    (ax,) = draw_model(model, mnist[1][0], mnist[1][0]).axes
    texts = [text.get_text() for text in ax.texts if text.get_text()]
    shapes = [text for text in texts if text[0].isdigit()]
    assert shapes == ["1×28×28", "16×28×28", "32×28×28", "64×28×28", "1×28×28"]
    convolutions = [text.split("\n") for text in texts if text.startswith("conv")]
    assert convolutions == [
        ["conv1 3×3", "no bias"],
        ["conv2 3×3", "no bias"],
        ["conv3 3×3", "no bias"],
        ["conv4 3×3", "bias"],
    ]
    assert [text for text in texts if text in ("BN · ReLU", "sigmoid")] == ["BN · ReLU"] * 3 + ["sigmoid"]


def test_figures_are_images_of_ink_and_paper(model, mnist):
    for figure in (
        srmnist.show_grid(mnist[1][:10], mnist[1][:10], mnist[1][:10]),
        draw_model(model, *mnist[1][:2]),
    ):
        picture = decode(png(figure))
        assert picture.shape[1] > 1600  # sharp at twice a README's width
        assert picture.min() == 0
        assert picture.max() == 255
        assert picture[:2, :2].min() == 255  # white paper, also on a dark page


def test_pairs_are_written_with_the_author_s_arithmetic(mnist):
    image = srmnist.degrade(mnist[1][:1])[0]
    expected = np.squeeze(image * 255).astype(np.uint8)
    np.testing.assert_array_equal(decode(grey_png(image)), expected)


class OnDevice:
    """An array in a GPU's memory, as CuPy shows it: NumPy cannot see into it."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def get(self) -> np.ndarray:
        return self._array

    def __array__(self, *args: object, **kwds: object) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")


def test_grid_takes_images_on_a_gpu(mnist, monkeypatch):
    monkeypatch.setattr(cuda, "ndarray", OnDevice)
    monkeypatch.setattr(cuda, "get_device_from_array", lambda array: cuda.DummyDevice)
    inputs, outputs, originals = map(OnDevice, mnist[1][:6].reshape(3, 2, 1, 28, 28))
    figure = srmnist.show_grid(inputs, outputs, originals)
    for ax, image in zip(figure.axes, mnist[1][:6], strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), image[0])


def test_figures_are_the_same_whatever_the_user_s_matplotlibrc_says(mnist):
    images = mnist[1][:2]
    expected = png(srmnist.show_grid(images, images))
    with matplotlib.rc_context({"text.usetex": True, "figure.facecolor": "black", "savefig.bbox": "tight"}):
        assert png(srmnist.show_grid(images, images)) == expected


def titled(title: str, image: np.ndarray) -> np.ndarray:
    """Pixels of a picture with a title, drawn without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return decode(png(draw_side_by_side({title: image})))


@pytest.mark.parametrize("name", ["$x$.png", "cost $5.png", "$\\frac{$.png", "caf\udce9.png", "a\nb\t.png"])
def test_any_file_name_is_drawn_as_it_is(name, mnist):
    title = fonts.caption(name, "28×28")
    assert title.startswith(name[0])
    assert title.endswith(", 28×28")
    assert titled(title, mnist[1][0]).size


def test_dollars_in_a_name_are_no_mathematics(mnist):
    (ax,) = draw_side_by_side({"$x$": mnist[1][0]}).axes
    assert not ax.title.get_parse_math()
    row = {"psnr_mean": 20, "readability": 0.9}
    rows = dict.fromkeys(("degraded", "restored", "original"), row)
    figure = draw_sizes([{"data": "$a$ $", "size": 10, "rows": rows}])
    assert png(figure)
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "$a$ $, restored"


def test_name_that_no_font_has_is_left_out(mnist, monkeypatch):
    monkeypatch.setattr(fonts, "_installed", lambda: iter([]))
    fonts.families.cache_clear()
    assert fonts.caption("数字.png", "28×28") == "28×28"
    fonts.families.cache_clear()
    assert titled("28×28", mnist[1][0]).size


def test_name_that_some_font_has_is_drawn_in_it(mnist):
    if fonts.families("数字") is None:
        pytest.skip("this machine has no font for Japanese")
    title = fonts.caption("数字.png", "28×28")
    assert title == "数字.png, 28×28"
    assert not np.array_equal(titled(title, mnist[1][0]), titled("□□.png, 28×28", mnist[1][0]))
