"""NumPy archives (npz) that anybody may have made: read by what must be in them, never by what they claim."""

import io
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from srmnist.system.files import FileError, read_regular

# A snapshot takes 0.3 MB and a log entry 140 characters, four bytes each: room for 100,000 epochs.
_LARGEST_FILE = 16 << 20
_LARGEST_TEXT = 64 << 20
_HEADER_ROOM = 4096

# The header that NumPy has written since its version 1.0; matched, because the general parser evaluates it.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<>|=]?[a-zA-Z]\d{0,9})', 'fortran_order': (True|False), "
    rb"'shape': \(([\dL, ]*)\), \} *\n",
    re.DOTALL,
)


def read_npz(path: Path, expected: Mapping[str, np.ndarray], others: bool = False) -> dict[str, np.ndarray]:
    """Read an archive that must hold certain arrays and nothing else.

    Nothing is unpickled, and no more is decompressed or allocated than the expected arrays take.

    Parameters
    ----------
    path : Path
    expected : mapping of str to ndarray
        For each name an array of the right shape and dtype. Scalars may have another width than expected,
        as platforms differ in it, and texts another length.
    others : bool, default False
        Whether it may hold others, which then are not read.

    Returns
    -------
    dict of str to ndarray
        New arrays, all finite.

    Raises
    ------
    FileError
        If the archive is damaged, or holds anything but finite arrays of these names, shapes and dtypes.
    """
    data = read_regular(path, _LARGEST_FILE)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            _check_names(members, expected, others)
            return {name: _read(archive, members[name], name, array) for name, array in expected.items()}
    except _UnfitError as error:
        raise FileError(f"{path}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # whatever zipfile and zlib raise at damaged bytes: the file is at fault
        raise FileError(f"{path}: cannot be read: damaged, or not an npz file: {error}") from error


class _UnfitError(Exception):
    pass


def _check_names(
    members: Mapping[str, zipfile.ZipInfo], expected: Mapping[str, np.ndarray], others: bool
) -> None:
    for name in expected:
        if name not in members:
            raise _UnfitError(f"has no {name}")
    for name in members:
        if name not in expected and not others:
            raise _UnfitError(f"holds {name[:80]!r}, which does not belong there")


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, expected: np.ndarray) -> np.ndarray:
    text = expected.dtype.kind == "U"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _UnfitError(f"{name} is compressed in an unknown way")
    if member.file_size > (_LARGEST_TEXT if text else expected.nbytes) + _HEADER_ROOM:
        raise _UnfitError(f"{name} claims {member.file_size:,} bytes, too many for {_describe(expected)}")
    with archive.open(member) as file:
        data = file.read(member.file_size)  # never further; its end also checks the CRC
    header = _HEADER.match(data)
    if header is None:
        raise _UnfitError(f"{name} is not an array")
    dtype = np.dtype(header[1].decode())
    shape = tuple(int(length) for length in re.findall(rb"\d+", header[3]))
    if shape != expected.shape:
        raise _UnfitError(f"{name} has shape {shape}, not {expected.shape}")
    if dtype != expected.dtype and (expected.shape or dtype.kind != expected.dtype.kind):
        raise _UnfitError(f"{name} is {dtype.name}, not {expected.dtype.name}")
    if len(data) - header.end() != dtype.itemsize * math.prod(shape):
        raise _UnfitError(f"{name} is truncated")
    order: Literal["F", "C"] = "F" if header[2] == b"True" else "C"
    array = np.frombuffer(data, dtype, offset=header.end()).reshape(shape, order=order).copy()
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise _UnfitError(f"{name} holds NaN or infinite values")
    if text:
        array.item()  # fails at what is no character
    return array


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype.name} of shape {array.shape}"
