"""MNIST's file format, IDX, is read."""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from srmnist.system.files import FileError, open_regular

# gzip makes images 5 to 10 times smaller, and zeros 1,000 times. A file is refused as harmful if it unpacks
# to more than 64 MB (80,000 images of MNIST's size) and to more than 100 times its own size.
_UNPACKED_UNASKED = 64 << 20
_MOST_PACKED = 100


def read_idx(path: Path, magic: int) -> np.ndarray:
    """Read one IDX file of unsigned bytes.

    Parameters
    ----------
    path : Path
        A file whose name ends in ``.gz`` is decompressed, up to the size that its header claims.
    magic : int
        The number that the file must begin with. Its lowest byte is the number of dimensions.

    Returns
    -------
    ndarray of uint8
        With this number of dimensions.

    Raises
    ------
    FileError
        If the file cannot be read, or if its content does not agree with its header.
    """
    ndim = magic & 0xFF
    packed = path.suffix == ".gz"
    try:
        with open_regular(path) as raw, gzip.open(raw) if packed else raw as file:
            header = file.read(4 + 4 * ndim)
            if len(header) < 4 + 4 * ndim or struct.unpack_from(">I", header)[0] != magic:
                raise FileError(
                    f"{path}: not an IDX file with {ndim} dimension{'s'[: ndim - 1]} of unsigned bytes"
                )
            shape = struct.unpack_from(f">{ndim}I", header, 4)
            if 0 in shape:
                raise FileError(f"{path}: its header says {'×'.join(map(str, shape))}: no data")
            size = math.prod(shape)
            room = os.fstat(raw.fileno()).st_size
            if size > (max(_UNPACKED_UNASKED, room * _MOST_PACKED) if packed else room):
                raise FileError(
                    f"{path}: {size:,} bytes expected by its header, more than a file of {room:,} holds"
                )
            body = _read_at_most(file, size + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise FileError(f"{path}: cannot be read: {reason}") from error
    if len(body) != size:
        found = "more" if len(body) > size else f"{len(body):,}"
        raise FileError(f"{path}: {size:,} bytes expected by its header, {found} found")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _read_at_most(file: BinaryIO | gzip.GzipFile, size: int) -> bytearray:
    """Read up to `size` bytes, in parts: the header may claim more than the file holds."""
    body = bytearray()
    while len(body) < size:
        chunk = file.read(min(size - len(body), 1 << 24))
        if not chunk:
            break
        body += chunk
    return body
