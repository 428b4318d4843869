"""IDX files that are damaged, or meant to do harm: each is refused in one line."""

import gzip
import io
import lzma
import os
import re
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest

import srmnist  # noqa: F401 – first: it makes Chainer import  # isort: skip
from srmnist.data import load_dataset, read_idx
from srmnist.soak.small_runs import small_data
from srmnist.system.errors import UserError
from helpers.forks import needs_fork, run_forked
from helpers.runs import command
from helpers.users import refusal

IMAGES = 0x803


def header(*dimensions: int, magic: int = IMAGES) -> bytes:
    return struct.pack(f">{1 + len(dimensions)}I", magic, *dimensions)


BODY = bytes(range(98))
IDX = {
    "empty file": b"",
    "header cut short": header(2, 7),
    "no IDX": b"GIF89a" + bytes(200),
    "labels instead of images": header(98, magic=0x801) + BODY,
    "floats instead of bytes": header(2, 7, 7, magic=0xD03) + BODY * 4,
    "body cut short": header(2, 7, 7) + BODY[:-1],
    "trailing byte": header(2, 7, 7) + BODY + b"\0",
    "dimensions larger than the file": header(2**32 - 1, 2**32 - 1, 2**32 - 1) + BODY,
    "no images": header(0, 7, 7),
    "images without pixels": header(2, 0, 7),
}


@pytest.mark.parametrize("content", IDX.values(), ids=IDX)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_malformed_idx_is_refused(tmp_path, content, suffix):
    path = tmp_path / f"images{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_idx(path, IMAGES)


GOOD_GZ = gzip.compress(header(2, 7, 7) + BODY)
GZ = {
    "cut short": GOOD_GZ[:-9],
    "checksum wrong": GOOD_GZ[:-8] + bytes([GOOD_GZ[-8] ^ 1]) + GOOD_GZ[-7:],
    "broken inside": GOOD_GZ[:20] + b"\xff\xff\xff" + GOOD_GZ[23:],
    "garbage behind": GOOD_GZ + b"garbage",
    "bomb behind": GOOD_GZ + gzip.compress(bytes(100 << 20)),
    "bomb that its header announces": gzip.compress(header(10**6, 28, 28) + bytes(100 << 20)),
}


@pytest.mark.parametrize("content", GZ.values(), ids=GZ)
def test_corrupt_or_swelling_gzip_is_refused(tmp_path, content):
    (tmp_path / "images.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"images\.gz"):
        read_idx(tmp_path / "images.gz", IMAGES)


def test_good_idx_is_read_plain_and_packed(tmp_path):
    (tmp_path / "images").write_bytes(header(2, 7, 7) + BODY)
    (tmp_path / "images.gz").write_bytes(GOOD_GZ)
    for name in ("images", "images.gz"):
        images = read_idx(tmp_path / name, IMAGES)
        assert (images.shape, images.dtype) == ((2, 7, 7), np.uint8)
        assert images.tobytes() == BODY


@needs_fork
def test_pipe_in_place_of_data_does_not_hang_the_script(tmp_path):
    small_data(tmp_path / "data")
    (tmp_path / "data" / "t10k-images-idx3-ubyte").unlink()
    os.mkfifo(tmp_path / "data" / "t10k-images-idx3-ubyte")
    line = refusal(run_forked(command(tmp_path / "data", tmp_path / "out")))
    assert "t10k-images-idx3-ubyte" in line
    assert not (tmp_path / "out").exists()


NPZ = io.BytesIO()
np.savez(NPZ, x_train=np.zeros(3, np.uint8))
NPY = io.BytesIO()
np.save(NPY, np.zeros(3, np.uint8))
TAR = io.BytesIO()
with tarfile.open(fileobj=TAR, mode="w") as tar:
    tar.addfile(tarfile.TarInfo("train-images-idx3-ubyte"))
ZIP = io.BytesIO()
with zipfile.ZipFile(ZIP, "w") as archive:
    archive.writestr("gzip/emnist-letters-train-images-idx3-ubyte.gz", b"")
FOREIGN = {
    "rank 4": (header(2, 1, 7, 7, magic=0x804) + BODY, "an IDX file of 4 dimensions of unsigned bytes"),
    "floats": (header(2, 7, 7, magic=0xD03) + BODY * 4, "an IDX file of 3 dimensions of 32-bit floats"),
    "labels": (header(98, magic=0x801) + BODY, "an IDX file of 1 dimension of unsigned bytes"),
    "empty": (b"", "empty"),
    "web page": (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><head>", "a web page: the download has failed"),
    "XML": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page: the download"),
    "CSV": (b"label,pixel0,pixel1\r\n5,0,0\r\n", "a table as text (CSV)"),
    "CSV without names": (b"5," + b"0," * 400 + b"0\n", "a table as text (CSV)"),
    "TSV": ("クラス\t画素\t画素\n".encode() * 40, "a table as text (CSV)"),
    "text": (b"404: Not Found\n", "text, it begins with '404: Not Found'"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "ZIP": (ZIP.getvalue(), "a ZIP archive: unpack it"),
    "npz": (NPZ.getvalue(), "a NumPy archive (.npz)"),
    "npy": (NPY.getvalue(), "a NumPy array"),
    "tar": (TAR.getvalue(), "a tar archive: unpack it"),
    "packed twice": (gzip.compress(header(2, 7, 7) + BODY), "packed with gzip: unpack it"),
    "xz": (lzma.compress(BODY), "packed with xz: unpack it"),
    "MATLAB": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "a MATLAB file"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "a picture"),
    "other bytes": (b"\x80\x02\x8a\nl\xfc", "unknown, it begins with the bytes 80 02 8a 0a"),
    "bytes of another order": (
        header(2, 7, 7)[3::-1] + BODY,
        "unknown, it begins with the bytes 03 08 00 00",
    ),
}


@pytest.mark.parametrize(("content", "words"), FOREIGN.values(), ids=FOREIGN)
def test_file_that_is_no_data_under_the_name_of_data_is_named(tmp_path, content, words):
    small_data(tmp_path / "data")
    plain = tmp_path / "data" / "train-images-idx3-ubyte"
    plain.unlink()
    for path, written in ((plain.with_suffix(".gz"), gzip.compress(content)), (plain, content)):
        if content.startswith(b"\x1f\x8b") and path == plain:
            continue  # that is a good file
        path.write_bytes(written)
        with pytest.raises(UserError) as caught:
            load_dataset(tmp_path / "data")
        assert str(caught.value).startswith(f"{path}: {words}")
        assert str(caught.value).isprintable()


def test_any_file_given_as_data_is_named(tmp_path):
    for name, (content, words) in FOREIGN.items():
        if not words.startswith("an IDX"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(UserError, match=re.escape(f"--data {tmp_path / name}: {words}")):
                load_dataset(tmp_path / name)


def test_huge_sparse_file_takes_no_memory(tmp_path):
    """Its header tells the truth: 400 GB of zeros, of which the disk holds none."""
    path = tmp_path / "images"
    with open(path, "wb") as file:
        file.write(header(10**6, 640, 640))
        try:
            file.truncate(16 + 10**6 * 640 * 640)
        except OSError as error:
            pytest.skip(f"this file system has no file of 400 GB: {error}")
    images = read_idx(path, IMAGES)
    assert images.shape == (10**6, 640, 640)
    assert not images[-1].any()


def test_packed_images_take_their_size_once(tmp_path):
    images = np.random.default_rng(0).integers(0, 4, (20_000, 28, 28), np.uint8)
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(header(*images.shape) + images.tobytes(), 1))
    tracemalloc.start()
    try:
        found = read_idx(path, IMAGES)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found, images)
    assert peak < images.nbytes + (8 << 20)
