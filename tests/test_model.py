"""The model is the article's: it computes, learns and is stored as the author's was."""

from collections.abc import Iterator

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
import chainer
import chainer.functions as F
import chainer.links as L
from chainer import gradient_check

PARAMETERS = [
    "bn1/beta",
    "bn1/gamma",
    "bn2/beta",
    "bn2/gamma",
    "bn3/beta",
    "bn3/gamma",
    "conv1/W",
    "conv2/W",
    "conv3/W",
    "conv4/W",
    "conv4/b",
]
STATISTICS = [f"bn{number}/avg_{name}" for number in (1, 2, 3) for name in ("mean", "var")]


class ArticleCNNAE(chainer.Chain):
    """The class as the article prints it."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            N = 16
            kwds = {"ksize": 3, "stride": 1, "pad": 1, "nobias": True}
            self.conv1 = L.Convolution2D(1, N, **kwds)
            self.bn1 = L.BatchNormalization(N)
            self.conv2 = L.Convolution2D(N, N * 2, **kwds)
            self.bn2 = L.BatchNormalization(N * 2)
            self.conv3 = L.Convolution2D(N * 2, N * 4, **kwds)
            self.bn3 = L.BatchNormalization(N * 4)
            self.conv4 = L.Convolution2D(N * 4, 1, ksize=3, stride=1, pad=1)

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)))
        h = F.relu(self.bn3(self.conv3(h)))
        h = F.sigmoid(self.conv4(h))
        return h

    def __call__(self, x, t):
        h = self.forward(x)
        loss = F.mean_squared_error(h, t)
        chainer.report({"loss": loss}, self)
        return loss


class Trajectory:
    """The reference's 20 steps, walked again from its initial weights."""

    def __init__(self, reference: dict[str, np.ndarray], train: np.ndarray) -> None:
        self.model = srmnist.CNNAE()
        parameters = dict(self.model.namedparams())
        for name in PARAMETERS:
            parameters[f"/{name}"].array[...] = reference[f"init/{name}"]
        optimizer = chainer.optimizers.Adam().setup(self.model)
        self.losses = []
        for step in range(20):
            t = train[reference["order"][64 * step : 64 * step + 64]]
            loss = self.model(srmnist.degrade(t), t)
            self.model.cleargrads()
            loss.backward()
            if step == 0:
                self.gradients = {name: parameters[f"/{name}"].grad.copy() for name in PARAMETERS}
            optimizer.update()
            self.losses.append(float(loss.array))


# How far from the reference the first gradients and the state after 20 steps may lie, relative to the whole
# array, and how far a restored pixel. NumPy's float32 means over a batch, with which Chainer normalises, put
# the reference's own gradients up to 6e-4 off those of float64; an engine with better means differs from it
# by as much, and Adam, which divides each gradient by its own size, makes whole steps of the small ones.
# The losses of plain Chainer depend on the BLAS; the engine has its own.
TOLERANCE = {
    "accelerated": {"loss": 1e-4, "gradient": 1e-3, "state": 3e-3, "pixel": 1e-3},
    "plain": {"loss": 1e-3, "gradient": 1e-4, "state": 1e-3, "pixel": 1e-4},
}


@pytest.fixture(scope="module", params=TOLERANCE)
def trajectory(request, reference, mnist) -> Iterator[Trajectory]:
    with chainer.using_config("plain", request.param == "plain"):
        trajectory = Trajectory(reference, mnist[0])
        trajectory.tolerance = TOLERANCE[request.param]
        yield trajectory


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_losses_of_20_steps_are_the_reference_s(trajectory, reference):
    np.testing.assert_allclose(trajectory.losses, reference["losses"], rtol=trajectory.tolerance["loss"])


@pytest.mark.parametrize("name", PARAMETERS)
def test_first_gradients_are_the_reference_s(trajectory, reference, name):
    found, expected = trajectory.gradients[name], reference[f"grad0/{name}"]
    assert distance(found, expected) < trajectory.tolerance["gradient"]


@pytest.mark.parametrize("name", PARAMETERS + STATISTICS)
def test_weights_and_statistics_after_20_steps_are_the_reference_s(trajectory, reference, name):
    found = chainer.serializers.npz.serialize(trajectory.model)[name]
    assert distance(found, reference[f"final/{name}"]) < trajectory.tolerance["state"]


def test_restored_images_are_the_reference_s(trajectory, reference):
    restored = srmnist.restore(reference["degraded8"], trajectory.model)
    np.testing.assert_allclose(restored, reference["restored8"], rtol=0, atol=trajectory.tolerance["pixel"])


def test_validation_loss_is_the_reference_s(trajectory, reference, mnist):
    images = mnist[1][: int(reference["n_eval"])]
    degraded = srmnist.degrade(images)
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        losses = [
            float(trajectory.model(degraded[start : start + 64], images[start : start + 64]).array)
            for start in range(0, len(images), 64)
        ]
    assert np.mean(losses) == pytest.approx(float(reference["val_loss"]), rel=1e-3)


def test_backward_is_the_gradient_of_forward(engine):
    rng = np.random.default_rng(0)
    x, t = rng.random((2, 3, 1, 7, 6))
    with chainer.using_config("dtype", np.float64):
        model = srmnist.CNNAE()
    gradient_check.check_backward(
        lambda x, t, *_: model(x, t), (x, t), None, tuple(model.params()), eps=1e-6, rtol=1e-5, atol=1e-7
    )


def test_weights_are_exchanged_with_the_article_s_class_both_ways(engine, tmp_path, mnist):
    theirs, ours = ArticleCNNAE(), srmnist.CNNAE()
    images = mnist[1][:8]
    for model, other in ((theirs, ours), (ours, theirs)):
        model(srmnist.degrade(images), images)  # moves the running statistics off their initial values
        chainer.serializers.save_npz(tmp_path / "weights.npz", model)
        chainer.serializers.load_npz(tmp_path / "weights.npz", other)
        with chainer.using_config("train", False):
            expected, found = (chain.forward(images).array for chain in (theirs, ours))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_same_numbers_as_the_article_s_class_when_plain(mnist):
    theirs, ours = ArticleCNNAE(), srmnist.CNNAE()
    ours.copyparams(theirs)
    images = mnist[1][:8]
    with chainer.using_config("plain", True):
        np.testing.assert_array_equal(ours(images, images).array, theirs(images, images).array)


def test_images_of_any_height_and_width(engine):
    images = np.random.default_rng(0).random((2, 1, 13, 32), dtype=np.float32)
    restored = srmnist.CNNAE().forward(images)
    assert restored.shape == images.shape
    assert restored.dtype == np.float32
    assert restored.array.min() > 0
    assert restored.array.max() < 1


def test_loss_is_reported_under_the_article_s_name(engine, mnist):
    model = srmnist.CNNAE()
    reporter = chainer.Reporter()
    reporter.add_observer("main", model)
    with reporter:
        loss = model(mnist[1][:2], mnist[1][:2])
    assert list(reporter.observation) == ["main/loss"]
    assert float(reporter.observation["main/loss"].array) == float(loss.array)


def test_class_is_found_by_every_statement_of_a_notebook():
    import srmnist.CNNAE
    import srmnist.CNNAE as by_alias
    from srmnist import CNNAE

    assert srmnist.CNNAE is CNNAE is by_alias
    assert isinstance(srmnist.CNNAE(), chainer.Chain)
