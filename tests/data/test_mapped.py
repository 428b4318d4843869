"""Files that are not packed are mapped: pages that all processes share, and a file that may change."""

import gc
import gzip
import mmap
import os
import re
from pathlib import Path

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from srmnist import UserError
from srmnist.soak.small_runs import small_data

from conftest import write_idx


def is_mapped(array: np.ndarray) -> bool:
    """Whether an array shows a file's pages."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return isinstance(array.obj if isinstance(array, memoryview) else array, mmap.mmap)


@pytest.fixture
def images(tmp_path) -> Path:
    """The training images of a small data set in ``tmp_path / "data"``."""
    small_data(tmp_path / "data")
    return tmp_path / "data" / "train-images-idx3-ubyte"


def test_plain_files_are_mapped_and_packed_ones_are_read(images):
    (images.parent / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(images.read_bytes()))
    (images.parent / "t10k-images-idx3-ubyte").unlink()
    train, test = srmnist.load_dataset(images.parent)
    assert is_mapped(train.images)
    assert not train.images.flags.writeable
    assert not is_mapped(test.images)
    np.testing.assert_array_equal(train.images, test.images)


@pytest.mark.parametrize("change", ["shrinks", "grows", "gets other bytes"])
def test_file_that_changes_while_it_is_mapped_is_refused_by_name(images, change):
    train, test = srmnist.load_dataset(images.parent)
    train.require_intact()
    with open(images, "r+b") as file:
        if change == "shrinks":
            file.truncate(images.stat().st_size // 2)
        else:
            file.seek(0, os.SEEK_END if change == "grows" else os.SEEK_SET)
            file.write(b"\0")
    before = images.stat()
    os.utime(images, ns=(before.st_atime_ns, before.st_mtime_ns + 1))  # a file system's clock may be coarse
    with pytest.raises(UserError, match=re.escape(f"{images}: has changed while it was in use")):
        train.require_intact()
    test.require_intact()


def test_file_that_vanishes_or_is_replaced_stays_as_it_was(images):
    train, _ = srmnist.load_dataset(images.parent)
    expected = srmnist.load_dataset().train.images[:128]
    images.unlink()
    write_idx(images, 255 - expected)
    train.require_intact()
    np.testing.assert_array_equal(train.images, expected)


def test_packed_files_and_embedded_mnist_are_always_intact(images):
    packed = images.with_name(f"{images.name}.gz")
    packed.write_bytes(gzip.compress(images.read_bytes()))
    images.unlink()
    train, _ = srmnist.load_dataset(images.parent)
    packed.write_bytes(b"")
    train.require_intact()
    for split in srmnist.load_dataset():
        split.require_intact()


def test_file_that_cannot_be_mapped_is_read(images, monkeypatch):
    def refuse(*args, **kwds):
        raise OSError(19, "No such device")

    monkeypatch.setattr(mmap, "mmap", refuse)
    train, _ = srmnist.load_dataset(images.parent)
    np.testing.assert_array_equal(train.images, srmnist.load_dataset().train.images[:128])


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
def test_data_set_that_is_no_longer_used_keeps_no_file_open(images):
    def opened() -> int:
        return sum(
            images.parent in Path(os.path.realpath(f"/proc/self/fd/{number}")).parents
            for number in os.listdir("/proc/self/fd")
        )

    dataset = srmnist.load_dataset(images.parent)
    assert opened() > 0
    del dataset
    gc.collect()
    assert opened() == 0
