"""The data are MNIST, embedded whole, or whatever IDX files a directory holds."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from chainer.datasets import _mnist_helper

from conftest import write_idx

# SHA-256 of the four files as they were published, unpacked.
PUBLISHED = {
    ("train", "images"): "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ("train", "labels"): "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ("test", "images"): "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ("test", "labels"): "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@pytest.mark.parametrize(("half", "content"), PUBLISHED)
def test_embedded_mnist_is_the_published_one_byte_for_byte(half, content):
    array = getattr(getattr(srmnist.load_dataset(), half), content)
    file = struct.pack(f">I{array.ndim}I", 0x00000800 + array.ndim, *array.shape) + array.tobytes()
    assert hashlib.sha256(file).hexdigest() == PUBLISHED[half, content]


def test_images_have_the_values_of_chainer_s_get_mnist(mnist):
    for images, split in zip(mnist, srmnist.load_dataset(), strict=True):
        raw = {"x": split.images.reshape(len(split.images), 784), "y": split.labels}
        expected = _mnist_helper.preprocess_mnist(raw, False, 3, 1.0, np.float32, np.int32, False)
        np.testing.assert_array_equal(images, expected, strict=True)


def test_idx_files_are_read_plain_and_gzipped(small_mnist, tmp_path):
    for file in small_mnist.iterdir():
        (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    expected = srmnist.load_dataset()
    for directory in (small_mnist, tmp_path):
        train, test = srmnist.load_dataset(directory)
        np.testing.assert_array_equal(train.images, expected.train.images[:256])
        np.testing.assert_array_equal(train.labels, expected.train.labels[:256])
        np.testing.assert_array_equal(test.images, expected.test.images[:64])
        np.testing.assert_array_equal(test.labels, expected.test.labels[:64])


def test_labels_may_be_missing_and_images_of_any_size(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 12, 17), np.uint8)
    for half in ("train", "t10k"):
        write_idx(tmp_path / f"{half}-images-idx3-ubyte", images)
    train, test = srmnist.load_dataset(tmp_path)
    assert train.labels is test.labels is None
    np.testing.assert_array_equal(test.images, images)
