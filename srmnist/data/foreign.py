"""What a file is that is not IDX, by its first bytes."""

import codecs
from pathlib import Path

from srmnist.system.files import FileError, open_regular

# How many bytes `describe` needs: a tar archive has its sign at byte 257.
HEAD = 512

_UNPACK = "unpack it"
GZIP = b"\x1f\x8b"  # a file packed with gzip begins so
_ZIP = b"PK\x03\x04"
_SIGNS = (
    (_ZIP, f"a ZIP archive: {_UNPACK}"),
    (GZIP, f"packed with gzip: {_UNPACK}"),
    (b"\xfd7zXZ\0", f"packed with xz: {_UNPACK}"),
    (b"BZh", f"packed with bzip2: {_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"packed with zstd: {_UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive: {_UNPACK}"),
    (b"Rar!\x1a\x07", f"a RAR archive: {_UNPACK}"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file: get the data set as IDX files"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 or MATLAB file: get the data set as IDX files"),
    (b"\x93NUMPY", "a NumPy array: get the data set as IDX files"),
    (b"PAR1", "a Parquet table: get the data set as IDX files"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file: run `git lfs pull`"),
    (b"\x89PNG", "a picture: scripts/restore.py restores pictures"),
    (b"\xff\xd8\xff", "a picture: scripts/restore.py restores pictures"),
    (b"GIF8", "a picture: scripts/restore.py restores pictures"),
)
_HTML = (b"<!doctype html", b"<html", b"<head", b"<?xml")


def describe(head: bytes) -> str:
    """Say what a file is, and what to do about it.

    Parameters
    ----------
    head : bytes
        The first bytes of the file, `HEAD` of them if it is so long.
    """
    if not head:
        return "empty: download it again"
    if head.startswith(_ZIP) and _first_member(head).endswith(b".npy"):
        return "a NumPy archive (.npz): get the data set as IDX files"
    for sign, words in _SIGNS:
        if head.startswith(sign):
            return words
    if head[257:262] == b"ustar":
        return f"a tar archive: {_UNPACK}"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML):
        return "a web page: the download has failed; download it again"
    return _describe_text(head) or f"unknown, it begins with the bytes {head[:4].hex(' ')}"


def _first_member(head: bytes) -> bytes:
    """The name of the first file in a ZIP archive."""
    return head[30 : 30 + int.from_bytes(head[26:28], "little")]


def _describe_text(head: bytes) -> str | None:
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return None
    lines = text.splitlines()
    if not lines or not all(line.replace("\t", " ").isprintable() for line in lines):
        return None
    if max(map(lines[0].count, ",;\t")) > 1:
        return "a table as text (CSV): get the data set as IDX files"
    return f"text, it begins with {lines[0][:30]!r}"


def describe_file(path: Path) -> str:
    """`describe` for a file; the reason if it cannot be read."""
    try:
        with open_regular(path) as file:
            return describe(file.read(HEAD))
    except (FileError, OSError) as error:
        return str(error)
