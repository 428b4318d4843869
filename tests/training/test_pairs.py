"""Pairs are made from the stored bytes when a batch needs them, and have the bits of `degrade`."""

import io
import sys

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
import chainer
from srmnist.data import Split, to_float
from srmnist.engine.cpu import threads
from srmnist.engine.cpu.pairs import PairMaker
from srmnist.training import settings
from srmnist.training.pairs import Pairs


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def expected(chosen: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    originals = to_float(chosen, chainer.get_dtype())
    return srmnist.degrade(originals, size), originals


def assert_same_bits(found: tuple[np.ndarray, ...], wanted: tuple[np.ndarray, ...]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.ascontiguousarray(one).tobytes() == other.tobytes()


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((70, 28, 28), 10),
        ((70, 28, 28), 1),
        ((70, 28, 28), 27),
        ((70, 28, 28), 28),
        ((9, 5, 31), 4),
        ((3, 256, 256), 77),
        ((2, 1, 1), 1),
    ],
)
def test_compiled_pairs_have_the_bits_of_degrade_whatever_the_number_of_threads(shape, size):
    """The compiled way itself: `Pairs` would quietly do without it if the bits were others."""
    stored, (_, height, width) = images(*shape), shape
    for count in (1, 3):
        threads.set_thread_count(count)
        try:
            assert_same_bits(PairMaker(height, width, size)(stored), expected(stored, size))
        finally:
            threads.set_thread_count(None)


def test_batches_and_single_pairs_are_those_of_the_article(engine):
    stored = images(40, 28, 28)
    pairs = Pairs(stored, 10)
    degraded, originals = expected(stored, 10)
    for batch in ([3, 1, 3], [39], np.arange(40)):
        assert_same_bits(pairs.batch(batch), (degraded[batch], originals[batch]))
    assert len(pairs) == 40
    assert_same_bits(pairs[5], (degraded[5], originals[5]))
    assert_same_bits(pairs[-1], (degraded[-1], originals[-1]))
    assert_same_bits(pairs.converter([7, 8], chainer.get_device("@numpy")), (degraded[7:9], originals[7:9]))


def test_turned_and_read_only_images_are_used_as_they_are():
    stored = images(6, 12, 20)
    turned = stored.transpose(0, 2, 1)
    turned.flags.writeable = False
    pairs = Pairs(turned, 5)
    assert pairs.images is turned
    assert_same_bits(pairs.batch([4, 0]), expected(turned[[4, 0]], 5))


def test_another_dtype_is_that_of_chainer():
    with chainer.using_config("dtype", np.float64):
        pairs = Pairs(images(4, 28, 28), 10)
        assert_same_bits(pairs.batch([1, 2]), expected(pairs.images[1:3], 10))


def test_where_the_compiled_way_has_other_bits_chainer_s_functions_run(monkeypatch):
    def fused(maker, stored):
        degraded, originals = expected(stored, 10)
        return np.nextafter(degraded, np.float32(2)), originals

    monkeypatch.setattr(PairMaker, "__call__", fused)
    pairs = Pairs(images(4, 28, 28), 10)
    assert_same_bits(pairs.batch([1, 2]), expected(pairs.images[1:3], 10))


def test_every_use_of_images_asks_first_whether_they_are_intact():
    def changed() -> None:
        raise srmnist.UserError("changed")

    pairs = Pairs(images(4, 28, 28), 10, changed)
    for use in (lambda: pairs[0], lambda: pairs.batch([1]), lambda: next(pairs.batches())):
        with pytest.raises(srmnist.UserError, match="changed"):
            use()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("slow", [True, False])
def test_a_digest_that_takes_long_says_so_once(slow, monkeypatch):
    split = Split(images(3000, 28, 28), None)
    dataset = srmnist.load_dataset()
    dataset = type(dataset)(split, split, "random")
    monkeypatch.setattr(settings, "_SILENT", 0.0 if slow else 1e9)
    monkeypatch.setattr(sys, "stderr", Terminal())
    identity = settings.identity(settings.Settings(), dataset)
    said = sys.stderr.getvalue()
    assert said == ("computing a checksum of 5 MB of images: snapshots keep it\n" if slow else "")
    assert len(identity["data"]) == 64


def test_the_digest_of_mnist_is_that_of_earlier_snapshots():
    identity = settings.identity(settings.Settings(), srmnist.load_dataset())
    assert identity["data"] == "19cba6c7f598b2b3b2f980087a5961be00239b5c852750be2d7ae41319df74aa"
