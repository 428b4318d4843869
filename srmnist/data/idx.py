"""IDX, MNIST's file format, is read.

A file begins with two zero bytes, the type of its values and its number of dimensions. The dimensions follow
as 32-bit integers, then the values; the first byte of every number is its highest.
Source: http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import math
import os
import struct
import zlib
from collections.abc import Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple

import numpy as np

from srmnist.data.foreign import GZIP, HEAD, describe
from srmnist.data.mapped import MappedFile
from srmnist.system.files import FileError, open_regular

# By the third byte of a file: NumPy's type, and its name in messages.
_TYPES = {
    0x08: ("u1", "unsigned bytes"),
    0x09: ("i1", "signed bytes"),
    0x0B: (">i2", "16-bit integers"),
    0x0C: (">i4", "32-bit integers"),
    0x0D: (">f4", "32-bit floats"),
    0x0E: (">f8", "64-bit floats"),
}

# gzip makes images 5 to 10 times smaller, and zeros 1,000 times. A file is refused as harmful if it unpacks
# to more than 64 MB (80,000 images of MNIST's size) and to more than 100 times its own size.
_UNPACKED_UNASKED = 64 << 20
_MOST_PACKED = 100


class Idx(NamedTuple):
    """The content of an IDX file.

    Attributes
    ----------
    array : ndarray
        Read-only if the file is mapped.
    mapped : MappedFile or None
        The file that `array` shows; None if the array is in memory.
    """

    array: np.ndarray
    mapped: MappedFile | None


def read_idx(path: Path, magic: int) -> np.ndarray:
    """Read one IDX file.

    Parameters
    ----------
    path : Path
        Packed with gzip or not, whatever its name says.
    magic : int
        The number that the file must begin with: 0x803 for images, three dimensions of unsigned bytes.

    Returns
    -------
    ndarray
        Of the type and the number of dimensions that `magic` says. A file that is not packed is not read but
        mapped: use it only while nobody changes the file.

    Raises
    ------
    FileError
        If the file cannot be read, or if its content does not agree with its header.
    """
    return open_idx(path, [magic]).array


def open_idx(path: Path, magics: Sequence[int]) -> Idx:
    """Map an IDX file into memory; read it if it is packed, or cannot be mapped.

    Parameters
    ----------
    path : Path
    magics : sequence of int
        The numbers that the file may begin with.

    Raises
    ------
    FileError
        As `read_idx` does.
    """
    try:
        with open_regular(path) as raw:
            if raw.peek(2)[:2] == GZIP:
                with gzip.open(raw) as unpacked:
                    return _read(path, unpacked, magics, _most_unpacked(raw))
            return _map(path, raw, magics)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise FileError(f"{path}: cannot be read: {reason}") from error


def _map(path: Path, file: BufferedIOBase, magics: Sequence[int]) -> Idx:
    start, dtype, shape = _header(path, file, magics)
    size = _size(dtype, shape)
    found = os.fstat(file.fileno()).st_size - start
    if found != size:
        raise FileError(f"{path}: {size:,} bytes expected by its header, {found:,} found")
    try:
        mapped = MappedFile(path, file.fileno())
    except (OSError, ValueError):
        file.seek(0)
        return _read(path, file, magics, size)
    if len(mapped.memory) != start + size:
        raise FileError(f"{path}: has changed while it was opened; start again")
    values = np.frombuffer(mapped.memory, dtype, math.prod(shape), offset=start)
    return Idx(values.reshape(shape), mapped)


def _read(path: Path, file: BufferedIOBase, magics: Sequence[int], most: int) -> Idx:
    """Read a file of at most `most` bytes of values. Its header may claim more than it holds."""
    _, dtype, shape = _header(path, file, magics)
    size = _size(dtype, shape)
    if size > most:
        raise FileError(f"{path}: {size:,} bytes expected by its header, more than so small a file holds")
    body = np.empty(size, np.uint8)  # takes no memory before it is filled
    found = 0
    while count := file.readinto(body.data[found : found + (1 << 20)]):
        found += count
    if found < size or file.read(1):  # at the end, gzip compares its checksum
        more = "more" if found == size else f"{found:,}"
        raise FileError(f"{path}: {size:,} bytes expected by its header, {more} found")
    return Idx(body.view(dtype).reshape(shape), None)


def _most_unpacked(raw: BufferedIOBase) -> int:
    return max(_UNPACKED_UNASKED, os.fstat(raw.fileno()).st_size * _MOST_PACKED)


def _header(path: Path, file: BufferedIOBase, magics: Sequence[int]) -> tuple[int, np.dtype, tuple[int, ...]]:
    """The header of a file: its length, and the type and the shape of the values."""
    head = file.read(4)
    magic = int.from_bytes(head, "big")
    kind, ndim = magic >> 8, magic & 0xFF
    if len(head) < 4 or kind not in _TYPES or ndim == 0:
        raise FileError(f"{path}: {describe(head + file.read(HEAD))}; it should be an IDX file")
    if magic not in magics:
        raise FileError(f"{path}: an IDX file of {_form(magic)}; it should be of {_form(magics[0])}")
    head = file.read(4 * ndim)
    if len(head) < 4 * ndim:
        raise FileError(f"{path}: ends in its header")
    shape = struct.unpack(f">{ndim}I", head)
    if 0 in shape:
        raise FileError(f"{path}: its header says {'×'.join(map(str, shape))}: no data")
    return 4 + 4 * ndim, np.dtype(_TYPES[kind][0]), shape


def _form(magic: int) -> str:
    ndim = magic & 0xFF
    return f"{ndim} dimension{'s'[: ndim - 1]} of {_TYPES[magic >> 8][1]}"


def _size(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    return dtype.itemsize * math.prod(shape)
