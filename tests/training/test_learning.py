"""A run shows how its network learned: ten digits at moments of the run, in a file and in an animation."""

import io
import pickle
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import srmnist  # first: it makes Chainer import  # isort: skip
from srmnist.training import animation
from srmnist.data import pick
from srmnist.training.live_figure import LiveFigure
from srmnist.results import write_figures
from srmnist.system.errors import UserError
from srmnist.system.files import FileError
from srmnist.training.learning import load, moments_passed, to_grey
from srmnist.training.settings import Settings
from srmnist.training.train import train

from conftest import write_idx

STEPS = 64  # an epoch, so that each of the early moments falls on a step


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """Directory of IDX files: 64 training and 12 test images of MNIST."""
    directory = tmp_path_factory.mktemp("tiny")
    for half, split, count in zip(("train", "t10k"), srmnist.load_dataset(), (64, 12), strict=True):
        write_idx(directory / f"{half}-images-idx3-ubyte", split.images[:count])
    return directory


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory) -> tuple[Path, list[tuple[float, np.ndarray]]]:
    """A run of two epochs, and what its network made of the test images after each step."""
    out = tmp_path_factory.mktemp("run")
    digits = srmnist.degrade(srmnist.load_mnist()[1][:12])
    seen = []
    settings = Settings(epoch=2, batchsize=1, data=str(tiny))
    train(settings, out, follow=lambda at: seen.append((at.epoch, srmnist.restore(digits, at.model))))
    return out, seen


def epochs(*settings: int, tiny: Path, out: Path, resume: Path | None = None, seed: int = 0) -> bytes:
    """Train for so many epochs of one step, one run after the other, and return the animation."""
    for count in settings:
        train(Settings(epoch=count, batchsize=64, data=str(tiny), seed=seed), out, resume)
        resume = out
    return (out / "learning.gif").read_bytes()


def test_digits_are_those_that_the_network_restored_at_these_moments(run):
    out, seen = run
    kept = load(out / "learning.npz")
    assert kept.epochs == [0, 1 / 64, 1 / 16, 1 / 4, 1, 2]
    assert kept.images == 64
    restored = dict(seen)
    chosen = pick(12)
    originals = srmnist.load_mnist()[1][:12][chosen]
    np.testing.assert_array_equal(kept.originals, to_grey(originals))
    np.testing.assert_array_equal(kept.degraded, to_grey(srmnist.degrade(originals)))
    for epoch, loss, output in zip(kept.epochs, kept.losses, kept.restored, strict=True):
        np.testing.assert_array_equal(output, to_grey(restored[epoch][chosen]))
        assert loss == pytest.approx(np.mean((restored[epoch][chosen] - originals) ** 2), rel=1e-5)


def test_last_moment_is_the_model_that_the_run_has_written(run):
    out, _ = run
    kept = load(out / "learning.npz")
    model = srmnist.load_weights(out / "model.npz", srmnist.CNNAE())
    degraded = kept.degraded[:, None].astype(np.float32) / 255
    last = to_grey(srmnist.restore(degraded, model)).astype(int)
    assert np.abs(last - kept.restored[-1]).max() <= 2  # the input was rounded to grey values


def test_animation_shows_each_moment_and_waits_at_its_end(run):
    out, _ = run
    kept = load(out / "learning.npz")
    content = (out / "learning.gif").read_bytes()
    assert len(content) < 500_000
    animated = Image.open(io.BytesIO(content))
    assert animated.info["loop"] == 0  # again and again
    assert animated.n_frames == len(kept.epochs)
    times = []
    for number, output in enumerate(kept.restored):
        animated.seek(number)
        times.append(animated.info["duration"])
        frame = np.asarray(animated.convert("L")).astype(int)
        assert frame[:2].min() == 255  # white paper, also on a dark page
        # The middle of the pixels of the first and the last digit in the row in the middle.
        top = animation._TITLE + 3 * 29 + 1
        for column in (0, 9):
            left = animation._LEFT + column * 3 * 29 + 1
            shown = frame[top : top + 84 : 3, left : left + 84 : 3]
            assert np.abs(shown - output[column]).max() <= 3  # 56 greys
    assert times == [1500, 800, 800, 800, 800, 4000]


def test_same_seed_writes_the_same_files(tiny, tmp_path):
    runs = [(tmp_path / name, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    first, second, other = (epochs(2, tiny=tiny, out=out, seed=seed) for out, seed in runs)
    assert first == second != other
    assert len({(out / "learning.npz").read_bytes() for out, _ in runs}) == 2


def test_run_that_went_on_from_the_end_of_a_shorter_one_has_the_same_animation(tiny, tmp_path):
    untouched = epochs(13, tiny=tiny, out=tmp_path / "untouched")
    resumed = epochs(3, 11, 13, tiny=tiny, out=tmp_path / "resumed")
    # The end of the run of 11 epochs is no moment of a longer one.
    assert [*load(tmp_path / "resumed" / "learning.npz").epochs] == [*range(11), 13]
    assert resumed == untouched


def test_run_resumed_elsewhere_has_the_same_animation(tiny, tmp_path):
    untouched = epochs(3, tiny=tiny, out=tmp_path / "untouched")
    epochs(2, tiny=tiny, out=tmp_path / "first")
    (snapshot,) = (tmp_path / "first").glob("snapshot_iter_2.npz")
    assert epochs(3, tiny=tiny, out=tmp_path / "second", resume=snapshot) == untouched


def test_run_begun_anew_keeps_the_earlier_one_s_file_until_its_own_first_snapshot(tiny, tmp_path):
    """Here the new run has written its file and is stopped before its snapshot."""
    untouched = epochs(3, tiny=tiny, out=tmp_path / "untouched")
    out = tmp_path / "run"
    epochs(2, tiny=tiny, out=out)

    def stop(progress) -> None:
        raise RuntimeError("on purpose")

    for _ in range(2):  # the second one finds the file of the first
        with pytest.raises(RuntimeError, match="on purpose"):
            train(Settings(epoch=3, batchsize=64, data=str(tiny), seed=1), out, follow=stop)
        (out / "learning.npz").write_bytes(b"of the new run")
    earlier = out / "snapshot_earlier_iter_2.npz"
    assert epochs(3, tiny=tiny, out=out, resume=earlier) == untouched
    assert not (out / "learning_earlier.npz").exists()


def test_what_a_run_shows_changes_nothing_in_its_model(tiny, run):
    out, _ = run
    silent = train(Settings(epoch=2, batchsize=1, data=str(tiny)))
    model = srmnist.load_weights(out / "model.npz", srmnist.CNNAE())
    for (name, found), (_, expected) in zip(model.namedparams(), silent.model.namedparams(), strict=True):
        np.testing.assert_array_equal(found.array, expected.array, err_msg=name)


def test_run_without_a_directory_writes_nothing(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = train(Settings(epoch=1, batchsize=64, data=str(tiny)))
    assert result.files == []
    assert list(tmp_path.iterdir()) == []


def test_long_run_shows_few_moments():
    batches = 9375 // 10  # the article's
    steps = [step / batches for step in range(10 * batches + 1)]
    assert sum(moments_passed(*pair) for pair in pairwise(steps)) == 13  # and the one before training
    assert sum(moments_passed(epoch - 1, epoch) for epoch in range(1, 100_001)) == 46
    assert not moments_passed(15 - 1e-3, 15)
    assert moments_passed(1.9995, 2.0005)  # a batch that belongs to two epochs


def test_failed_drawing_does_not_lose_a_run(tiny, tmp_path, monkeypatch, capfd):
    def fail(frames):
        raise RuntimeError("no room for a picture")

    monkeypatch.setattr(animation, "gif", fail)
    result = train(Settings(epoch=1, batchsize=64, data=str(tiny)), tmp_path)
    (line,) = capfd.readouterr().err.splitlines()
    assert line == f"{tmp_path / 'learning.gif'}: was not drawn: no room for a picture"
    assert [path.name for path in result.files] == ["model.npz", "log", "loss.png"]
    assert (tmp_path / "model.npz").exists()
    assert not (tmp_path / "learning.gif").exists()


def test_figure_in_a_notebook_that_fails_is_told_once_and_does_not_lose_a_run(tiny, monkeypatch, capfd):
    pytest.importorskip("IPython")

    def fail(*moment):
        raise RuntimeError("no room for a picture")

    monkeypatch.setattr(animation.LearningFigure, "set_moment", fail)
    digits = srmnist.load_mnist()[1][:10]
    live = LiveFigure(srmnist.degrade(digits), digits, images=64, epochs=2)
    result = train(Settings(epoch=2, batchsize=64, data=str(tiny)), follow=live)
    assert len(result.log) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "the figure of the run cannot be drawn: no room for a picture"


@pytest.mark.parametrize("harm", ["missing", "damaged", "of another run"])
def test_resumed_run_that_cannot_use_the_file_says_so_and_goes_on(tiny, tmp_path, capfd, harm):
    epochs(2, tiny=tiny, out=tmp_path / "untouched")
    epochs(1, tiny=tiny, out=tmp_path / "run")
    kept = tmp_path / "run" / "learning.npz"
    if harm == "missing":
        kept.unlink()
    elif harm == "damaged":
        kept.write_bytes(kept.read_bytes()[:2000])
    else:
        epochs(1, tiny=tiny, out=tmp_path / "other", seed=1)
        kept.write_bytes((tmp_path / "other" / "learning.npz").read_bytes())
    capfd.readouterr()
    epochs(2, tiny=tiny, out=tmp_path / "run", resume=tmp_path / "run")
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"{kept}: ")
    assert line.endswith("; learning.gif will begin at epoch 1")
    assert load(kept).epochs == [1, 2]
    assert (tmp_path / "run" / "model.npz").read_bytes() == (
        tmp_path / "untouched" / "model.npz"
    ).read_bytes()


class Harmful:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def forge(content: bytes, changes: dict[str, bytes]) -> bytes:
    """An archive with other members under some names."""
    forged = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(forged, "w") as after:
        for name in before.namelist():
            after.writestr(name, changes.get(name.removesuffix(".npy"), before.read(name)))
    return forged.getvalue()


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array), allow_pickle=False)
    return file.getvalue()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moments": 10**9}, "it has 1000000000 moments"),
        ({"count": 0}, "of 0 images"),
        ({"images": -1}, "a training with -1"),
        ({"height": 10**9}, "1000000000×28 pixels"),
        ({"height": 27}, "has shape (10, 28, 28), not (10, 27, 28)"),
        ({"moments": 5}, "has shape (6,), not (5,)"),
        ({"epochs": [0.0, 0.5, 0.5, 1.0, 2.0, 3.0]}, "its epochs do not rise"),
        ({"epochs": [0.0, 0.1, 0.2, 0.3, 0.4, 1e300]}, "its epochs do not rise"),
        ({"losses": [0.1, 0.1, 0.1, 0.1, 0.1, 2.0]}, "its losses are not from 0 to 1"),
        ({"losses": [0.1, 0.1, 0.1, 0.1, 0.1, np.nan]}, "losses holds NaN"),
        ({"degraded": np.zeros((10, 28, 28), np.int8)}, "degraded is int8, not uint8"),
    ],
)
def test_forged_file_is_refused(run, tmp_path, changes, message):
    out, _ = run
    path = tmp_path / "learning.npz"
    arrays = {name: npy(value) for name, value in changes.items()}
    path.write_bytes(forge((out / "learning.npz").read_bytes(), arrays))
    with pytest.raises(FileError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_file_is_never_unpickled(run, tmp_path):
    out, _ = run
    header = b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(
        117
    )
    harmful = header + b"\n" + pickle.dumps(Harmful(tmp_path / "harm"))
    path = tmp_path / "learning.npz"
    path.write_bytes(forge((out / "learning.npz").read_bytes(), {"run": harmful}))
    with pytest.raises(FileError):
        load(path)
    assert not (tmp_path / "harm").exists()


def test_figures_of_a_run_draw_the_same_animation_again(run, tmp_path):
    out, _ = run
    files = write_figures(out / "model.npz", tmp_path)
    assert files[-1] == tmp_path / "learning.gif"
    assert files[-1].read_bytes() == (out / "learning.gif").read_bytes()


def test_figures_of_a_forged_run_are_refused(run, tmp_path):
    out, _ = run
    for name in ("model.npz", "learning.npz"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    (tmp_path / "learning.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"learning\.npz: cannot be read"):
        write_figures(tmp_path / "model.npz", tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_large_images_are_kept_with_fewer_pixels():
    images = np.random.default_rng(0).random((2, 1, 300, 200), np.float32)
    kept = to_grey(images)
    assert kept.shape == (2, 100, 67)
    np.testing.assert_array_equal(kept[:, 1, 2], np.round(images[:, 0, 3, 6] * 255))


def test_images_of_any_shape_and_number_are_drawn():
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 17), np.uint8)
    figure = animation.LearningFigure(images, images, 100, 1000)
    frames = figure.frames([0.0, 1000.0], [0.2, 1e-4], [images, images])
    assert len(animation.gif(frames)) > 1000
