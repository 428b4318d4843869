"""CHAINER_DTYPE decides in which floating-point type the network computes, as in the article's code."""

import io

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
import chainer
from srmnist.restoration import load_model
from srmnist.results import write_figures
from srmnist.system.files import FileError
from srmnist.training.settings import Settings
from srmnist.training.train import train

from conftest import write_idx

# chainer.config.dtype is what Chainer makes of CHAINER_DTYPE when it is imported.
DTYPES = {"float64": np.float64, "float16": np.float16, "mixed16": chainer.mixed16}


@pytest.mark.parametrize("name", DTYPES)
def test_float32_weights_load_and_restore_in_every_type(name, weights):
    degraded = srmnist.degrade(srmnist.load_mnist()[1][:2])
    expected = srmnist.restore(degraded, load_model(weights))
    with chainer.using_config("dtype", DTYPES[name]):
        model = load_model(weights)
        assert model.conv1.W.dtype == chainer.get_dtype()
        restored = srmnist.restore(degraded, model)
        own = srmnist.degrade(srmnist.load_mnist()[1][:2])
        assert own.dtype == chainer.get_dtype()
        np.testing.assert_allclose(own, degraded, atol=1e-3)
        assert srmnist.restore(own, model).dtype == own.dtype
        assert model(own, own).dtype == own.dtype  # as a notebook trains
    assert restored.dtype == np.float32
    np.testing.assert_allclose(restored, expected, atol=2e-3 if name != "float64" else 1e-5)


def test_training_in_float64_agrees_and_its_weights_are_used_in_float32(tmp_path):
    images = srmnist.load_dataset().train.images[:16, 8:20, 8:20]  # small: plain Chainer is slow
    for half in ("train", "t10k"):
        write_idx(tmp_path / f"{half}-images-idx3-ubyte", images)
    settings = Settings(epoch=2, batchsize=8, data=str(tmp_path))
    results = []
    for dtype in (np.float32, np.float64):
        out = tmp_path / np.dtype(dtype).name
        with chainer.using_config("dtype", dtype):
            results.append(train(settings, out, terminal=io.StringIO()).mse)
    assert results[0] == pytest.approx(results[1], rel=1e-3)
    with np.load(out / "model.npz") as npz:
        assert npz["conv1/W"].dtype == np.float64
    assert write_figures(out / "model.npz", tmp_path / "figures", str(tmp_path))


def test_training_in_mixed16_learns_and_in_float16_says_what_to_take(tmp_path):
    images = srmnist.load_dataset().train.images[:16, 8:20, 8:20]
    for half in ("train", "t10k"):
        write_idx(tmp_path / f"{half}-images-idx3-ubyte", images)
    # Steps enough for the running statistics: before, plain Chainer overflows when it evaluates, too.
    settings = Settings(epoch=3, batchsize=1, data=str(tmp_path))
    with chainer.using_config("dtype", chainer.mixed16):
        result = train(settings, None, terminal=io.StringIO())
    assert result.log[-1]["main/loss"] < result.log[0]["main/loss"]
    with (
        chainer.using_config("dtype", np.dtype(np.float16)),
        pytest.raises(srmnist.UserError, match=r"^diverged: .*; CHAINER_DTYPE=float16 .* take mixed16"),
    ):
        train(settings, None, terminal=io.StringIO())


def test_weights_with_other_numbers_than_floats_are_refused(weights):
    with np.load(weights) as npz:
        arrays = dict(npz)
    for dtype in (np.int32, np.complex64, np.longdouble):
        np.savez(weights, **{**arrays, "conv1/W": arrays["conv1/W"].astype(dtype)})
        with pytest.raises(FileError, match="conv1/W"):
            srmnist.load_weights(weights, srmnist.CNNAE())
