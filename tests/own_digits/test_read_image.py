"""Pictures as phones and scanners make them are read upright, and the rest gets one clear line."""

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srmnist.system.errors import UserError
from srmnist.own_digits import read_image as module
from srmnist.own_digits.read_image import grey, read_image
from helpers.users import run

RAMP = np.arange(0, 252, 9, dtype=np.uint8).reshape(4, 7)
COLOURS = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=-1)


def write(path: Path, image: Image.Image | np.ndarray, **options) -> Path:
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def test_grey_image_is_read_as_it_is(tmp_path):
    image = read_image(write(tmp_path / "i.png", RAMP))
    assert (image.shape, image.dtype) == ((1, 4, 7), np.float32)
    np.testing.assert_allclose(image[0], RAMP / 255, atol=1e-6)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".pgm", ".tiff", ".webp", ".gif", ".jpg", ".jp2"])
def test_formats_of_phones_and_scanners_are_read(tmp_path, suffix):
    image = read_image(write(tmp_path / f"i{suffix}", np.full((9, 9), 128, np.uint8)))
    np.testing.assert_allclose(grey(image), 128 / 255, atol=0.01)


def test_colours_become_grey_as_the_eye_weighs_them(tmp_path):
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    image = grey(read_image(write(tmp_path / "i.png", primaries)))
    np.testing.assert_allclose(image[0, 0], [0.299, 0.587, 0.114, 1], atol=1e-3)
    assert image.max() <= 1


@pytest.mark.parametrize("mode", ["P", "CMYK", "RGBA", "1"])
@pytest.mark.parametrize("side", [None, 7], ids=["whole", "shrunk"])
def test_palettes_and_printers_colours_look_as_in_a_viewer(tmp_path, mode, side):
    picture = Image.fromarray(COLOURS.repeat(3, axis=0).repeat(3, axis=1)).convert(mode)
    image = read_image(write(tmp_path / "i.tiff", picture), side)
    seen = picture.convert("RGB")
    seen = np.asarray(seen.reduce(3) if side else seen, np.float32) / 255
    np.testing.assert_allclose(grey(image), grey(np.moveaxis(seen, -1, 0)), atol=0.02)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff"])
def test_exif_orientation_is_obeyed(tmp_path, orientation, suffix):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 255  # light in the upper left corner only, and wider than high
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: np.rot90(upright, 2).T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path / f"i{suffix}", np.ascontiguousarray(stored), exif=exif)
    np.testing.assert_allclose(read_image(path)[0], upright / 255, atol=0.1)
    np.testing.assert_allclose(read_image(path, 12)[0], upright[::2, ::2] / 255, atol=0.1)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_deep_pictures_keep_their_depth_and_their_white(tmp_path, bits, suffix):
    deep = (RAMP.astype(np.uint32) * (2**bits - 1) // 243).astype(np.uint16)
    image = read_image(write(tmp_path / f"i{suffix}", deep))
    np.testing.assert_allclose(image[0], deep / (2**bits - 1), atol=1e-6)


def test_floating_point_pictures_are_read_and_infinite_ones_refused(tmp_path):
    values = RAMP.astype(np.float32)
    np.testing.assert_allclose(read_image(write(tmp_path / "i.tiff", values))[0], values / 243, atol=1e-6)
    values[0, 0] = np.inf
    with pytest.raises(UserError, match="finite"):
        read_image(write(tmp_path / "i.tiff", values))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("ink", [0, 255], ids=["black ink", "white ink"])
def test_what_is_transparent_becomes_paper(tmp_path, mode, suffix, ink):
    picture = np.zeros((2, 3, 2), np.uint8)
    picture[..., 0] = ink
    picture[:, ::2, 1] = 255
    image = read_image(write(tmp_path / f"i{suffix}", Image.fromarray(picture, "LA").convert(mode)))
    np.testing.assert_allclose(grey(image)[0], [[ink / 255, 1 - ink / 255, ink / 255]] * 2, atol=1e-6)


def test_transparent_colour_of_a_palette_becomes_paper(tmp_path):
    picture = Image.new("P", (3, 2), 1)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    picture.putpixel((1, 0), 0)
    image = read_image(write(tmp_path / "i.png", picture, transparency=1))
    np.testing.assert_allclose(grey(image)[0], [[1, 0, 1], [1, 1, 1]], atol=1e-6)


def test_large_pictures_are_shrunk_by_means(tmp_path):
    random = np.random.default_rng(0).integers(0, 256, (70, 90), np.uint8)
    image = read_image(write(tmp_path / "i.png", random), 45)
    np.testing.assert_allclose(image[0], random.reshape(35, 2, 45, 2).mean((1, 3)) / 255, atol=0.003)


def test_large_jpeg_takes_little_memory(tmp_path):
    write(tmp_path / "i.jpg", Image.new("RGB", (8000, 6000), (200, 200, 200)))
    code = """
import resource, sys
from pathlib import Path
from srmnist.own_digits.read_image import read_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
image = read_image(Path(sys.argv[1]), 1600)
print(image.shape[1:], (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    shape, megabytes = run([sys.executable, "-c", code, str(tmp_path / "i.jpg")]).stdout.rsplit(maxsplit=1)
    assert shape == "(750, 1000)"  # a quarter by the decoder, and half of that
    assert int(megabytes) < 100  # 48 megapixels would take 192


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(COLOURS.repeat(50, axis=0)).save(file, "JPEG")
    return file.getvalue()


GOOD = png(28, 28, b"\0" * 29 * 28)
BAD = {
    "empty": (b"", "is empty"),
    "text": (b"not an image", "not know"),
    "cut short": (GOOD[:-30], "cannot be read as a picture"),
    "JPEG cut short": (jpeg()[:-400], "cannot be read as a picture"),
    "bits flipped": (GOOD[:45] + bytes([GOOD[45] ^ 255]) + GOOD[46:], "cannot be read as a picture"),
    "bomb": (png(30000, 30000, b"\0" * 1000), "at most 200,000,000"),
    "no pixels": (png(0, 0, b""), "cannot be read as a picture"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("content", "said"), BAD.values(), ids=BAD)
def test_what_is_no_usable_picture_gets_one_line(tmp_path, capfd, content, said):
    path = tmp_path / "i.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"i\.png.*{said}") as caught:
        read_image(path, 1600)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_good_picture_of_the_same_make_is_read(tmp_path):
    (tmp_path / "i.png").write_bytes(GOOD)
    assert read_image(tmp_path / "i.png").shape == (1, 28, 28)


def test_bomb_is_refused_before_anything_is_decoded(tmp_path, monkeypatch):
    (tmp_path / "i.png").write_bytes(png(30000, 30000, b"\0" * 30001 * 300))
    monkeypatch.setattr(module, "_decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UserError, match="30000×30000 pixels; at most 200,000,000"):
        read_image(tmp_path / "i.png")


@pytest.mark.filterwarnings("error")
def test_between_pillow_s_limit_and_ours_there_is_no_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    (tmp_path / "i.png").write_bytes(GOOD)
    assert read_image(tmp_path / "i.png").shape == (1, 28, 28)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_absent_picture_directory_and_pipe_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.png", Path("/dev/zero")):
        with pytest.raises(UserError):
            read_image(path)


def test_heic_is_named_with_what_to_do_where_it_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "pillow_heif", None)
    path = tmp_path / "i.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100)
    with pytest.raises(UserError, match="HEIC; pip install pillow-heif, or save it as JPEG"):
        read_image(path)


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path):
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    path = write(tmp_path / "i.heic", np.full((64, 64), 128, np.uint8))
    np.testing.assert_allclose(grey(read_image(path)), 128 / 255, atol=0.02)
