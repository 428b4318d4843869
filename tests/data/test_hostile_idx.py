"""IDX files that are damaged, or meant to do harm: each is refused in one line."""

import gzip
import os
import re
import struct

import numpy as np
import pytest

import srmnist  # noqa: F401 – first: it makes Chainer import  # isort: skip
from srmnist.data import read_idx
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
