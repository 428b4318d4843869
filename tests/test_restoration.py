"""Restoring is the network in evaluation mode, on as many images as there are."""

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
import chainer

from srmnist.training.trainer import initial_model


def test_batches_restore_as_the_whole_does_and_change_nothing(engine, mnist):
    model = initial_model(0)
    degraded = srmnist.degrade(mnist[1][:11])
    statistics = model.bn1.avg_mean.copy()
    with chainer.using_config("train", False):
        whole = model.forward(degraded).array
    np.testing.assert_allclose(srmnist.restore(degraded, model, batchsize=4), whole, atol=1e-5)
    np.testing.assert_array_equal(model.bn1.avg_mean, statistics)
    assert chainer.config.train


def test_no_images_are_restored_to_none():
    assert srmnist.restore(np.empty((0, 1, 28, 28), np.float32), srmnist.CNNAE()).shape == (0, 1, 28, 28)


@pytest.mark.parametrize(
    "images", [np.zeros((2, 28, 28), "f"), np.zeros((2, 3, 28, 28), "f"), np.zeros((2, 1, 9, 9))]
)
def test_what_is_no_grey_float32_images_is_refused(images):
    with pytest.raises(ValueError, match="images must be float32"):
        srmnist.restore(images, srmnist.CNNAE())
