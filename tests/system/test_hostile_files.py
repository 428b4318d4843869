"""Files that are damaged, or meant to do harm: each is refused in one line, and nothing in them runs."""

import os
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
import chainer
from srmnist.system.archive import read_npz
from srmnist.weights import load_weights, save
from srmnist.system.errors import UserError
from srmnist.soak import mutate_files
from srmnist.soak.forgeries import npy, npy_header, npz
from helpers.forks import needs_fork, run_forked
from helpers.runs import command
from helpers.users import TRAIN, refusal, tree


@pytest.fixture
def weights(tmp_path):
    """A file of good weights, and the arrays in it."""
    model = srmnist.CNNAE()
    save(tmp_path / "model.npz", model)
    return tmp_path / "model.npz", chainer.serializers.npz.serialize(model)


def error(path: Path) -> str:
    """What `load_weights` says about a file."""
    model = srmnist.CNNAE()
    before = {name: value.copy() for name, value in chainer.serializers.npz.serialize(model).items()}
    with pytest.raises(UserError, match=re.escape(str(path))) as caught:
        load_weights(path, model)
    after = chainer.serializers.npz.serialize(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    return str(caught.value)


def with_member(arrays: dict, name: str, member: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive of arrays, one of which is replaced by other bytes."""
    members = {other: npy(np.asarray(array)) for other, array in arrays.items()}
    return npz({**members, name: member}, compression)


@needs_fork
def test_six_hundred_mutated_files_are_refused_or_load_to_equal_arrays():
    counts, failures = mutate_files(TRAIN, 600, seed=3, progress=lambda count: None, run=run_forked)
    assert failures == []
    assert counts["refused"] + counts["equal"] == 600
    assert min(counts["refused"], counts["equal"], counts["through the script"]) > 0


def test_weights_survive_saving_and_loading(weights):
    path, arrays = weights
    model = srmnist.CNNAE()
    load_weights(path, model)
    for name, value in chainer.serializers.npz.serialize(model).items():
        np.testing.assert_array_equal(value, arrays[name])


def test_weights_cannot_run_code(weights, tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    path, arrays = weights
    np.savez(path, **{**arrays, "conv1/W": np.array([Harm()], dtype=object)})
    error(path)
    np.savez(path, **{**arrays, "conv1/W": np.full((16, 1, 3, 3), Harm(), dtype=object)})
    assert "conv1/W is object" in error(path)
    path.write_bytes(with_member(arrays, "conv1/W", b"cos\nmkdir\n(S'harm'\ntR."))
    error(path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["conv2/W", "bn3/avg_var"])
def test_weights_that_are_not_finite_are_refused_by_name(weights, name, value):
    path, arrays = weights
    arrays[name].flat[-1] = value
    np.savez(path, **arrays)
    assert name in error(path)


@pytest.mark.parametrize("dtype", [np.int32, bool, complex])
def test_weights_of_another_dtype_are_refused_by_name(weights, dtype):
    path, arrays = weights
    np.savez(path, **{**arrays, "conv4/b": arrays["conv4/b"].astype(dtype)})
    assert "conv4/b" in error(path)


def test_missing_and_foreign_weights_are_named(weights):
    path, arrays = weights
    np.savez(path, **{name: array for name, array in arrays.items() if name != "bn1/gamma"})
    assert "bn1/gamma" in error(path)
    np.savez(path, **arrays, **{"conv5/W": np.zeros(3)})
    assert "conv5/W" in error(path)


def test_small_archive_that_claims_gigabytes_gets_no_memory(weights, tmp_path):
    path, arrays = weights
    hundred_gigabytes = npy_header("<f4", (25 * 10**9,))
    path.write_bytes(with_member(arrays, "conv1/W", hundred_gigabytes))
    assert "conv1/W" in error(path)
    path.write_bytes(with_member(arrays, "conv1/W", npy_header("<f4", (16, 1, 3, 3)) + bytes(200 << 20)))
    assert path.stat().st_size < 1 << 20
    assert "conv1/W claims" in error(path)
    # A directory of the archive that claims little, over a stream that holds much:
    honest = with_member(arrays, "conv1/W", npy_header("<f4", (16, 1, 3, 3)) + bytes(200 << 20))
    claim = struct.pack("<I", len(npy_header("<f4", (16, 1, 3, 3)) + bytes(200 << 20)))
    path.write_bytes(honest.replace(claim, struct.pack("<I", 650)))
    error(path)


def test_weights_packed_in_ways_that_numpy_does_not_use_are_refused(weights):
    path, arrays = weights
    member = npy_header("<f4", (16, 1, 3, 3)) + bytes(576)
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path.write_bytes(with_member(arrays, "conv1/W", member, compression))
        assert "compressed in an unknown way" in error(path)


def test_header_of_an_array_is_not_evaluated(weights):
    path, arrays = weights
    for shape in ("(" * 2000, "9" * 5000, "__import__('os')"):
        path.write_bytes(with_member(arrays, "conv1/W", npy_header("<f4", shape)))
        error(path)


def test_weights_in_fortran_order_are_read_right(weights):
    path, arrays = weights
    fortran = np.asfortranarray(np.random.default_rng(0).random((32, 16, 3, 3), np.float32))
    np.savez(path, **{**arrays, "conv2/W": fortran})
    model = srmnist.CNNAE()
    load_weights(path, model)
    np.testing.assert_array_equal(model.conv2.W.array, fortran)


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path, tmp_path / "pipe.npz", Path("/dev/zero"), tmp_path / "absent", tmp_path / "a\0b"):
        with pytest.raises(UserError):
            read_npz(path, {})


@needs_fork
def test_error_about_a_hostile_name_is_one_printable_line(home, tmp_path):
    with zipfile.ZipFile(tmp_path / "s.npz", "w") as archive:
        archive.writestr("\033[2J\nall is well", b"")
    line = refusal(run_forked(command(home / "data", tmp_path / "out", "--resume", tmp_path / "s.npz")))
    assert line.isprintable()
    assert "s.npz" in line


@needs_fork
@pytest.mark.parametrize(
    "flags", [("--batchsize", "129"), ("--size", "29"), ("--seed", "-1"), ("--epoch", "9" * 99)]
)
def test_numbers_out_of_range_are_refused_by_their_flag(home, tmp_path, flags):
    line = refusal(run_forked(command(home / "data", tmp_path / "out", *flags)))
    assert flags[0] in line
    assert tree(tmp_path) == {}
