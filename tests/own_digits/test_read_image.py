"""Images that a user gives: whatever OpenCV reads becomes grey float32, and the rest one clear line."""

import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from srmnist.system.errors import UserError
from srmnist.own_digits.read_image import read_image
from helpers.users import run

RAMP = np.arange(0, 252, 9, dtype=np.uint8).reshape(4, 7)


def write(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


def test_grey_image_is_read_as_it_is(tmp_path):
    image = read_image(write(tmp_path / "i.png", RAMP))
    assert (image.shape, image.dtype) == ((1, 1, 4, 7), np.float32)
    np.testing.assert_allclose(image[0, 0], RAMP / 255, atol=1e-6)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".pgm", ".tiff", ".webp"])
def test_formats_that_opencv_reads_are_read(tmp_path, suffix):
    image = read_image(write(tmp_path / f"i{suffix}", np.full((9, 9), 128, np.uint8)))
    np.testing.assert_allclose(image, 128 / 255, atol=0.01)


def test_sixteen_bits_keep_their_depth(tmp_path):
    deep = RAMP.astype(np.uint16) * 257 + 3
    image = read_image(write(tmp_path / "i.png", deep))
    np.testing.assert_allclose(image[0, 0], deep / 65535, atol=1e-6)


def test_colours_become_grey(tmp_path):
    colours = np.zeros((1, 4, 3), np.uint8)
    colours[0, 0, 2] = colours[0, 1, 1] = colours[0, 2, 0] = 255  # red, green, blue
    colours[0, 3] = 255
    image = read_image(write(tmp_path / "i.png", colours))
    np.testing.assert_allclose(image[0, 0, 0], [0.299, 0.587, 0.114, 1], atol=1e-3)
    assert image.max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparent_parts_become_black(tmp_path, dtype):
    white = np.full((2, 3, 4), np.iinfo(dtype).max, dtype)
    white[:, 1, 3] = 0
    image = read_image(write(tmp_path / "i.png", white))
    np.testing.assert_allclose(image[0, 0], [[1, 0, 1]] * 2, atol=1e-6)


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


GOOD = png(28, 28, b"\0" * 29 * 28)
BAD = {
    "empty": b"",
    "text": b"not an image",
    "cut short": GOOD[:-30],
    "bits flipped": GOOD[:45] + bytes([GOOD[45] ^ 255]) + GOOD[46:],
    "huge": png(30000, 30000, b"\0" * 1000),
    "larger than 4 megapixels": png(2049, 2048, b"\0" * 2050 * 2048),
    "no pixels": png(0, 0, b""),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_what_is_no_usable_image_gets_one_line(tmp_path, capfd, content):
    path = tmp_path / "i.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"i\.png") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_good_image_of_the_same_make_is_read(tmp_path):
    (tmp_path / "i.png").write_bytes(GOOD)
    assert read_image(tmp_path / "i.png").shape == (1, 1, 28, 28)


def test_absent_image_and_directory_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.png"):
        with pytest.raises(UserError):
            read_image(path)


def test_huge_image_is_refused_before_it_takes_memory(tmp_path):
    (tmp_path / "i.png").write_bytes(png(30000, 30000, b"\0" * 30001 * 3000))
    code = """
import resource, sys
from pathlib import Path
from srmnist.own_digits.read_image import read_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_image(Path(sys.argv[1]))
except Exception as error:
    print(type(error).__name__, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    name, megabytes = run([sys.executable, "-c", code, str(tmp_path / "i.png")]).stdout.split()
    assert name == "FileError"
    assert int(megabytes) < 50
