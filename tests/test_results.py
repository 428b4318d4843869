"""The figures of trained weights show the test images that they are asked for."""

import numpy as np

import srmnist  # first: it makes Chainer import  # isort: skip
from srmnist.figures import grey_png
from srmnist.evaluation.metrics import squared_errors
from srmnist.results import write_figures

from conftest import decode, write_idx


def test_same_seed_draws_the_same_digits(weights, small_mnist, tmp_path):
    runs = [
        write_figures(weights, tmp_path / name, small_mnist, seed=seed)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    first, second, other = ([file.read_bytes() for file in files] for files in runs)
    assert first == second
    assert first != other


def test_hardest_takes_the_images_restored_worst(weights, small_mnist, tmp_path):
    write_figures(weights, tmp_path, small_mnist, hardest=True)
    model = srmnist.load_weights(weights, srmnist.CNNAE())
    originals = srmnist.load_mnist()[1][:64]
    restored = srmnist.restore(srmnist.degrade(originals), model)
    errors = squared_errors(restored, originals)
    for number, index in enumerate(np.argsort(errors)[::-1][:10]):
        written = (tmp_path / f"output_{number:02d}.png").read_bytes()
        np.testing.assert_array_equal(decode(written), decode(grey_png(restored[index])))


def test_fewer_than_ten_images_are_enough(weights, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 17), np.uint8)
    for half in ("train", "t10k"):
        write_idx(tmp_path / f"{half}-images-idx3-ubyte", images)
    files = write_figures(weights, tmp_path / "out", tmp_path)
    assert [file.name for file in files[3:]] == [
        f"{kind}_{number:02d}.png" for number in range(3) for kind in ("input", "output")
    ]
    assert decode(files[3].read_bytes()).shape == (12, 17)
