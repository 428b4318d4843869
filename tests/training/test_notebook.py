"""Training from a notebook: nothing need be written, it can be followed, and the stop button stops it."""

import io
import math
import signal
from itertools import pairwise

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
import chainer
from helpers.runs import EPOCHS, STEPS, run_here, settings
from helpers.users import tree
from srmnist.soak.small_runs import results
from srmnist.training.interruption import Interrupted


@pytest.fixture(autouse=True)
def heeded_stop_button():
    """A shell's background jobs ignore SIGINT, pytest in one of them too; a notebook's kernel does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def same_weights(model, path) -> bool:
    found = chainer.serializers.npz.serialize(model)
    with np.load(path) as expected:
        return all(np.array_equal(found[name], expected[name]) for name in expected)


def train(data, **kwds):
    return srmnist.train(settings(data), terminal=io.StringIO(), **kwds)


def test_settings_and_training_are_public_and_the_defaults_the_article_s():
    assert (srmnist.Settings().epoch, srmnist.Settings().batchsize) == (10, 64)
    assert {"Settings", "train"} <= set(srmnist.__all__)


def test_without_a_directory_nothing_is_written_and_all_is_returned(home, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = tree(home)
    result = train(data)
    assert list(tmp_path.iterdir()) == []
    assert tree(home) == before
    assert result.files == []
    assert same_weights(result.model, home / "untouched" / "model.npz")
    assert [entry["epoch"] for entry in result.log] == [1, 2, 3]
    assert result.mse == result.log[-1]["validation/main/loss"]
    assert "model" not in repr(result)  # what a cell shows


def test_a_run_can_be_followed_step_by_step_and_is_not_changed_by_that(home, data, tmp_path):
    digits = srmnist.degrade(srmnist.load_mnist()[1][:10])
    seen, restored, logs = [], [], []

    def follow(progress) -> None:
        seen.append((progress.iteration, progress.epoch, progress.is_new_epoch))
        if progress.is_new_epoch or progress.iteration == 0:
            restored.append(srmnist.restore(digits, progress.model))
            logs.append(len(progress.log))

    train(data, out=tmp_path / "out", follow=follow)
    assert seen == [(i, i / STEPS, i > 0 and i % STEPS == 0) for i in range(EPOCHS * STEPS + 1)]
    assert logs == [0, 1, 2, 3]
    assert all(np.abs(one - other).max() > 1e-3 for one, other in pairwise(restored))
    assert results(tmp_path / "out") == results(home / "untouched")


def test_a_follower_of_a_resumed_run_begins_where_the_run_does(home, data):
    seen = []
    train(data, resume=home / "untouched" / "snapshot_iter_16.npz", follow=lambda p: seen.append(p.iteration))
    assert seen == list(range(16, EPOCHS * STEPS + 1))


def pressed(times: int, at: int = 11):
    """A follower that presses the stop button: Jupyter sends SIGINT."""

    def follow(progress) -> None:
        if progress.iteration == at:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    return follow


@pytest.mark.parametrize("directory", ["out", None])
def test_the_stop_button_keeps_the_model_so_far_and_a_second_run_works(home, data, tmp_path, directory):
    out = directory and tmp_path / directory
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(data, out=out, follow=pressed(1))
    stop = stopped.value
    assert isinstance(stop, Interrupted)
    assert stop.iteration == 12
    kept = "a snapshot is written" if out else "no file is written"
    assert str(stop) == f"stopped by SIGINT after iteration 12; {kept}"
    assert [entry["epoch"] for entry in stop.result.log] == [1]
    restored = srmnist.restore(srmnist.degrade(srmnist.load_mnist()[1][:2]), stop.result.model)
    assert np.isfinite(restored).all()
    assert signal.getsignal(signal.SIGINT) is handler
    again = train(data, out=out, resume=out)
    assert same_weights(again.model, home / "untouched" / "model.npz")


def test_a_run_stopped_in_its_first_epoch_has_no_error_yet(data):
    with pytest.raises(Interrupted) as stopped:
        train(data, follow=pressed(1, at=2))
    assert math.isnan(stopped.value.result.mse)
    assert stopped.value.result.log == []


def test_the_stop_button_pressed_twice_stops_at_once_and_a_second_run_works(home, data):
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(data, follow=pressed(2))
    assert not isinstance(stopped.value, Interrupted)
    assert same_weights(train(data).model, home / "untouched" / "model.npz")


@pytest.mark.parametrize(
    "wrong",
    [
        {"epoch": 0},
        {"epoch": 1.5},
        {"batchsize": -1},
        {"size": 0},
        {"seed": -1},
        {"seed": 2**32},
        {"recipe": "secret"},
        {"communicator": "tcp"},
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(wrong):
    (name,) = wrong
    with pytest.raises(srmnist.UserError, match=f"^{name}: "):
        srmnist.Settings(**wrong)


def test_an_error_of_the_follower_is_the_user_s_own_and_gives_the_directory_free(home, data, tmp_path):
    def fail(progress) -> None:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        train(data, out=tmp_path / "out", follow=fail)
    run_here(data, tmp_path / "out")
    assert results(tmp_path / "out") == results(home / "untouched")
