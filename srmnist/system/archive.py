"""NumPy archives (npz) from unknown sources: only expected arrays are read, and no header is trusted."""

import io
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np

from srmnist.system.files import FileError, read_regular

# A snapshot takes 0.3 MB and a log entry 140 characters, four bytes each: room for 100,000 epochs.
_LARGEST_FILE = 16 << 20
_LARGEST_TEXT = 64 << 20
_HEADER_ROOM = 4096

# The header that NumPy has written since its version 1.0. NumPy's own parser would evaluate it as Python.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<>|=]?[a-zA-Z]\d{0,9})', 'fortran_order': (True|False), "
    rb"'shape': \(([\dL, ]*)\), \} *\n",
    re.DOTALL,
)


def read_npz(
    path: Path, expected: Mapping[str, np.ndarray], others: bool = False, any_width: bool = False
) -> dict[str, np.ndarray]:
    """Read an archive that must hold certain arrays and nothing else.

    Nothing is unpickled, and no more is decompressed or allocated than the expected arrays take.

    Parameters
    ----------
    path : Path
    expected : mapping of str to ndarray
        For each name an array of the right shape and dtype. A scalar may have another width than expected,
        because platforms differ in it, and a text another length.
    others : bool, default False
        Whether the archive may hold other arrays, which then are not read.
    any_width : bool, default False
        Whether floating-point arrays may have another width than expected, up to 64 bits.

    Returns
    -------
    dict of str to ndarray
        New arrays, all finite.

    Raises
    ------
    FileError
        If the archive is damaged, or holds anything but finite arrays of these names, shapes and dtypes.
    """
    with _opened(path) as archive:
        members = _members(archive)
        _check_names(members, expected, others)
        return {
            name: _read(archive, members[name], name, array, any_width) for name, array in expected.items()
        }


def holds(path: Path, name: str) -> bool:
    """Whether a file is an archive with an array of that name, damaged or not."""
    try:
        with _opened(path) as archive:
            return name in _members(archive)
    except FileError:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive; any error in the block becomes a FileError about the file."""
    data = read_regular(path, _LARGEST_FILE)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield archive
    except _UnfitError as error:
        raise FileError(f"{path}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # zipfile and zlib raise many kinds at damaged bytes
        raise FileError(f"{path}: cannot be read: damaged, or not an npz file: {error}") from error


class _UnfitError(Exception):
    """An archive that does not hold what is expected."""


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {member.filename.removesuffix(".npy"): member for member in archive.infolist()}


def _check_names(
    members: Mapping[str, zipfile.ZipInfo], expected: Mapping[str, np.ndarray], others: bool
) -> None:
    for name in expected:
        if name not in members:
            raise _UnfitError(f"has no {name}")
    for name in members:
        if name not in expected and not others:
            raise _UnfitError(f"holds {name[:80]!r}, which does not belong there")


def _read(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, expected: np.ndarray, any_width: bool
) -> np.ndarray:
    text = expected.dtype.kind == "U"
    any_width = any_width and expected.dtype.kind == "f"
    nbytes = 8 * expected.size if any_width else expected.nbytes
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _UnfitError(f"{name} is compressed in an unknown way")
    if member.file_size > (_LARGEST_TEXT if text else nbytes) + _HEADER_ROOM:
        raise _UnfitError(f"{name} claims {member.file_size:,} bytes, too many for {_describe(expected)}")
    with archive.open(member) as file:
        data = file.read(member.file_size)  # not more than was checked; then zipfile compares the CRC
    header = _HEADER.match(data)
    if header is None:
        raise _UnfitError(f"{name} is not an array")
    dtype = np.dtype(header[1].decode())
    shape = tuple(int(length) for length in re.findall(rb"\d+", header[3]))
    if shape != expected.shape:
        raise _UnfitError(f"{name} has shape {shape}, not {expected.shape}")
    any_width = any_width and dtype.itemsize <= 8
    if dtype != expected.dtype and (dtype.kind != expected.dtype.kind or (expected.shape and not any_width)):
        advice = "; look at CHAINER_DTYPE" if dtype.kind == expected.dtype.kind == "f" else ""
        raise _UnfitError(f"{name} is {dtype.name}, not {expected.dtype.name}{advice}")
    if len(data) - header.end() != dtype.itemsize * math.prod(shape):
        raise _UnfitError(f"{name} is truncated")
    order: Literal["F", "C"] = "F" if header[2] == b"True" else "C"
    array = np.frombuffer(data, dtype, offset=header.end()).reshape(shape, order=order).copy()
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise _UnfitError(f"{name} holds NaN or infinite values")
    if text:
        array.item()  # raises an error if a code is not a character
    return array


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype.name} of shape {array.shape}"
