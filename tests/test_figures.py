"""The figures show what the model really does with the images that they claim to show."""

import cv2
import matplotlib.figure
import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from srmnist.evaluation import restore, squared_errors
from srmnist.figures import draw_degradation, draw_model, grey_png, png, write_figures
from srmnist.training import initial_model

import chainer
from conftest import run_python


@pytest.fixture(scope="module")
def model() -> srmnist.CNNAE:
    return initial_model(0)


@pytest.fixture
def weights(model, tmp_path):
    chainer.serializers.save_npz(tmp_path / "model.npz", model)
    return tmp_path / "model.npz"


def decode(content: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def test_batches_restore_as_the_whole_does_and_change_nothing(engine, model, mnist):
    degraded = srmnist.degrade(mnist[1][:11])
    statistics = model.bn1.avg_mean.copy()
    with chainer.using_config("train", False):
        whole = model.forward(degraded).array
    np.testing.assert_allclose(restore(model, degraded, batchsize=4), whole, atol=1e-5)
    np.testing.assert_array_equal(model.bn1.avg_mean, statistics)
    assert chainer.config.train


def test_grid_holds_input_output_and_original(model, mnist):
    images = mnist[1][:5]
    figure = srmnist.show_grid(model, images, size=7)
    assert isinstance(figure, matplotlib.figure.Figure)
    drawn = [ax.images[0].get_array() for ax in figure.axes]
    degraded = srmnist.degrade(images, 7)
    expected = [*degraded, *restore(model, degraded), *images]
    for found, image in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(found, image[0])
    assert [ax.get_ylabel() for ax in figure.axes[::5]] == ["input", "output", "original"]


def test_grid_is_shown_by_a_notebook_and_chooses_no_backend():
    done = run_python(
        "-c",
        "import sys, srmnist\n"
        "figure = srmnist.show_grid(srmnist.CNNAE(), srmnist.load_mnist()[1][:2])\n"
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
        ["conv1 3×3", "no bias"], ["conv2 3×3", "no bias"], ["conv3 3×3", "no bias"], ["conv4 3×3", "bias"],
    ]  # fmt: skip
    assert [text for text in texts if text in ("BN · ReLU", "sigmoid")] == ["BN · ReLU"] * 3 + ["sigmoid"]


def test_figures_are_images_of_ink_and_paper(model, mnist):
    for figure in (srmnist.show_grid(model, mnist[1][:10]), draw_model(model, *mnist[1][:2])):
        picture = decode(png(figure))
        assert picture.shape[1] > 1600  # sharp at twice a README's width
        assert picture.min() == 0
        assert picture.max() == 255
        assert picture[:2, :2].min() == 255  # white paper, also on a dark page


def test_pairs_are_written_with_the_author_s_arithmetic(mnist):
    image = srmnist.degrade(mnist[1][:1])[0]
    expected = np.squeeze(image * 255).astype(np.uint8)
    np.testing.assert_array_equal(decode(grey_png(image)), expected)


def test_same_seed_draws_the_same_digits(weights, small_mnist, tmp_path):
    runs = [
        write_figures(weights, tmp_path / name, small_mnist, seed=seed)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    first, second, other = ([file.read_bytes() for file in files] for files in runs)
    assert first == second
    assert first != other


def test_hardest_takes_the_images_restored_worst(model, weights, small_mnist, tmp_path):
    write_figures(weights, tmp_path, small_mnist, hardest=True)
    originals = srmnist.load_mnist()[1][:64]
    restored = restore(model, srmnist.degrade(originals))
    errors = squared_errors(restored, originals)
    for number, index in enumerate(np.argsort(errors)[::-1][:10]):
        written = (tmp_path / f"output_{number:02d}.png").read_bytes()
        np.testing.assert_array_equal(decode(written), decode(grey_png(restored[index])))


def test_fewer_than_ten_images_are_enough(weights, tmp_path):
    from conftest import write_idx

    images = np.random.default_rng(0).integers(0, 256, (3, 12, 17), np.uint8)
    for half in ("train", "t10k"):
        write_idx(tmp_path / f"{half}-images-idx3-ubyte", images)
    files = write_figures(weights, tmp_path / "out", tmp_path)
    assert [file.name for file in files[3:]] == [
        f"{kind}_{number:02d}.png" for number in range(3) for kind in ("input", "output")
    ]
    assert decode(files[3].read_bytes()).shape == (12, 17)


def test_squared_errors_are_one_for_each_image(mnist):
    images = mnist[1][:3]
    assert squared_errors(images, images).tolist() == [0, 0, 0]
    np.testing.assert_allclose(squared_errors(images, images + np.float32(0.5)), 0.25)
