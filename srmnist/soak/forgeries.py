"""Damaged and hostile files, made from good ones, to test the readers with."""

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from random import Random

import numpy as np

# Any finite value is valid in these arrays, so a reader cannot notice another number.
_FREE = ("/N", "/_x", "/_x2", "_snapshot_elapsed_time")


def damage(data: bytes, random: Random) -> bytes:
    """Damage a file as a bad disk or a broken transfer does: bits flip, parts are lost or repeated."""
    body = bytearray(data)
    start = random.randrange(len(body))
    end = min(len(body), start + random.choice([1, 2, 4, 100, 5000]))
    kind = random.randrange(7)
    if kind == 0:
        body[start] ^= 1 << random.randrange(8)
    elif kind == 1:
        body[start:end] = random.choice([b"\x00", b"\xff"]) * (end - start)
    elif kind == 2:
        body[start:end] = random.randbytes(end - start)
    elif kind == 3:
        del body[start:]
    elif kind == 4:
        del body[start:end]
    elif kind == 5:
        body[start:start] = body[start:end]
    else:
        body += random.randbytes(random.choice([1, 100, 70000]))
    return bytes(body)


def forge_npz(data: bytes, random: Random) -> bytes:
    """An intact archive with content that a reader must refuse."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = dict(file)
    name = random.choice([name for name in arrays if not name.endswith(_FREE)])
    array = arrays[name]
    members = {name: npy(array) for name, array in arrays.items()}
    forgeries = {
        "missing": lambda: members.pop(name),
        "extra": lambda: members.update({f"{name}2": members[name]}),
        "renamed": lambda: members.update({f"../{name}": members.pop(name)}),
        "no array": lambda: members.update({name: random.randbytes(200)}),
        "object": lambda: members.update({name: npy_header("|O", array.shape) + b"cos\nabort\n(tR."}),
        "claims much": lambda: members.update({name: npy_header("<f4", (5 * 10**9, 5))}),
        "bomb": lambda: members.update({name: _zeros()}),
        "other shape": lambda: members.update({name: npy(np.stack([array, array]))}),
        "other dtype": lambda: members.update({name: npy(np.full(array.shape, 1j))}),
        "deep header": lambda: members.update({name: npy_header("<f4", "(" * 3000)}),
    }
    if array.dtype.kind == "f":
        bad = np.array(array)
        bad.reshape(-1)[random.randrange(bad.size)] = random.choice([np.nan, np.inf, -np.inf])
        forgeries["not finite"] = lambda: members.update({name: npy(bad)})
    if array.dtype.kind == "i":
        off = array + random.choice([-(2**62), -1, 1, 2**62])
        forgeries["other number"] = lambda: members.update({name: npy(off)})
    if array.dtype.kind == "U":
        text = random.choice([*WRONG_TEXTS, *retyped(array.item())])
        forgeries["other text"] = lambda: members.update({name: npy(np.array(text))})
    kind = random.choice(sorted(forgeries))
    forgeries[kind]()
    compressions = [zipfile.ZIP_STORED, *[zipfile.ZIP_DEFLATED] * 6, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    if kind == "bomb":  # the others take seconds for it
        compressions = [zipfile.ZIP_DEFLATED]
    return npz(members, random.choice(compressions))


# A value of each JSON type, and texts that exhaust a parser.
WRONG_VALUES = ({}, [], "", "1", None, True, 0, -1, -1.5, float("nan"), [[]], [{}], {"epoch": 1})
WRONG_TEXTS = (*map(json.dumps, WRONG_VALUES), "", "[" * 100000, "[1e999]", "9" * 5000)


def retyped(text: str) -> list[str]:
    """A JSON text with one value after the other replaced by values of other types; none for other texts."""
    try:
        good = json.loads(text)
    except ValueError:
        return []
    places = list(_places(good))
    texts = []
    for place in places:
        for value in WRONG_VALUES:
            changed = json.loads(text)
            if not place:
                changed = value
            else:
                *way, last = place
                parent = changed
                for key in way:
                    parent = parent[key]
                parent[last] = value
            if json.dumps(changed) != json.dumps(good):
                texts.append(json.dumps(changed))
    return texts


def _places(value: object, place: tuple = ()) -> Iterator[tuple]:
    """The keys that lead to each value inside a JSON value, and the empty path of the whole value."""
    yield place
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield from _places(child, (*place, key))


def forge_idx(data: bytes, random: Random) -> bytes:
    """An IDX file with a wrong magic number or wrong dimensions in its header."""
    header = list(struct.unpack_from(">4I", data))
    number = random.randrange(4)
    header[number] = random.choice([0, 1, header[number] - 1, header[number] + 1, 2**31, 2**32 - 1])
    return struct.pack(">4I", *header) + data[16:]


def forge_idx_gz(data: bytes, random: Random) -> bytes:
    """A gzip file with a wrong IDX header, with damage, or with far more content than its header says."""
    kind = random.randrange(4)
    if kind == 0:
        return gzip.compress(forge_idx(data, random), 1)
    if kind == 1:
        return damage(gzip.compress(data, 1), random)
    if kind == 2:
        return gzip.compress(data, 1) + _gzip_zeros()
    return gzip.compress(struct.pack(">4I", 0x803, 10**6, 28, 28), 1) + _gzip_zeros()


def npz(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An npz archive; the content of each array may be any bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    """An array as an npz holds it."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def npy_header(dtype: str, shape: tuple[int, ...] | str) -> bytes:
    """The header of an npy file, with any dtype and shape."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@cache
def _zeros() -> bytes:
    return bytes(100 << 20)


@cache
def _gzip_zeros() -> bytes:
    return 8 * gzip.compress(_zeros(), 1)  # of several members, which a gzip file may have
