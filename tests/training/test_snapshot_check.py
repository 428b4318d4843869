"""A forged snapshot is refused: every field has the JSON type and the value that follow from its batches."""

import json
import zipfile

import numpy as np
import pytest

import srmnist
from helpers.forks import needs_fork, run_forked
from helpers.runs import command, run_here
from helpers.users import refusal, tree
from srmnist.soak.forgeries import WRONG_TEXTS, npy, npz, retyped
from srmnist.training.snapshot_check import check_progress, parse_batches, parse_log

LOG, BATCHES = "extensions/LogReport/_log", "batches"
IMAGES = 128


@pytest.fixture(scope="module")
def arrays(home) -> dict[str, np.ndarray]:
    with np.load(home / "untouched" / "snapshot_iter_24.npz") as npz:
        return dict(npz)


def check(arrays: dict[str, np.ndarray]) -> None:
    check_progress(arrays, IMAGES, parse_batches(arrays[BATCHES].item()))


def test_good_snapshot_is_taken(arrays):
    check(arrays)
    assert len(parse_log(arrays[LOG].item())) == 3
    assert parse_batches(arrays[BATCHES].item()) == [(16, 24)]


@pytest.mark.parametrize("name", [LOG, BATCHES])
def test_any_value_of_another_type_is_refused(arrays, name):
    texts = [*WRONG_TEXTS, *retyped(arrays[name].item())]
    if name == LOG:
        assert len(texts) > 100
    for text in texts:
        with pytest.raises(ValueError, match=r"^its |^extensions/|^updater/"):
            check({**arrays, name: np.asarray(text)})


def changed(arrays: dict[str, np.ndarray], **values: object) -> dict[str, np.ndarray]:
    """The snapshot with other values in its last log entry, under names with "_" instead of "/"."""
    log = json.loads(arrays[LOG].item())
    for name, value in values.items():
        log[-1][name.replace("__", "/")] = value
    return {**arrays, LOG: np.asarray(json.dumps(log))}


@pytest.mark.parametrize(
    "values",
    [
        {"main__loss": 1.5},
        {"validation__main__loss": -0.1},
        {"elapsed_time": float("inf")},
        {"elapsed_time": -1.0},
        {"iteration": 23},
        {"epoch": 2},
        {"epoch": 3.0},
        {"lr": 0.1},
    ],
    ids=str,
)
def test_values_that_no_run_logs_are_refused(arrays, values):
    with pytest.raises(ValueError, match=r"^its log "):
        check(changed(arrays, **values))


def test_every_counter_that_is_off_by_one_is_refused_by_its_name(arrays):
    counters = [
        name
        for name, array in arrays.items()
        if array.dtype.kind == "i" and not name.startswith("settings/") and not name.endswith("/N")
    ]
    assert len(counters) > 10
    for name in counters:
        with pytest.raises(ValueError, match=name if name != "updater/iteration" else "its log does not fit"):
            check({**arrays, name: arrays[name] + 1})


@needs_fork
@pytest.mark.parametrize("text", ["{}", '""', "null", "[]"])
def test_forged_log_ends_the_script_in_one_line(home, arrays, tmp_path, text):
    """It once passed for a log, trained an epoch, and died in a traceback."""
    forged = {**arrays, LOG: np.asarray(text)}
    (tmp_path / "s.npz").write_bytes(npz({name: npy(array) for name, array in forged.items()}))
    before = tree(tmp_path)
    flags = ["--epoch", 4, "--resume", tmp_path / "s.npz"]
    line = refusal(run_forked(command(home / "data", tmp_path / "new", *flags)))
    assert line.startswith(f"{tmp_path}/s.npz: its log ")
    assert tree(tmp_path) == before


def test_packed_in_another_way_it_is_refused_too(home, arrays, tmp_path):
    members = {name: npy(array) for name, array in arrays.items()}
    (tmp_path / "s.npz").write_bytes(npz(members, zipfile.ZIP_LZMA))
    with pytest.raises(srmnist.UserError, match="compressed in an unknown way"):
        run_here(home / "data", tmp_path / "new", tmp_path / "s.npz")
    (tmp_path / "s.npz").write_bytes(npz(members))
    run_here(home / "data", tmp_path / "new", tmp_path / "s.npz")
