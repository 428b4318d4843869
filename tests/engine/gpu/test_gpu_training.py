"""Training with the GPU engine is the same run as on the CPU, and repeats itself bit for bit."""

import io
import json
import re
import shutil
import sys

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
import chainer
from conftest import write_idx
from helpers.gpu_engine import to_host, why_no_gpu
from srmnist.training import divergence, reports, train as runs
from srmnist.engine.gpu import function, plan, updater as updaters
from srmnist.engine.gpu.resident import Resident
from srmnist.engine.gpu.updater import resident_evaluation, resident_updater
from srmnist.soak.small_runs import finish, results, small_data, train_command
from srmnist.training.settings import Settings
from srmnist.training.pairs import Pairs
from srmnist.training.trainer import EpochShuffle, build_trainer, initial_model
from srmnist.training.train import train
from helpers.users import SCRIPTS, TRAIN, refusal, run, tree


@pytest.fixture
def data(tmp_path):
    """Few images, and small: 14 for training in batches of 8, so the second goes over the epoch's end."""
    directory = tmp_path / "data"
    directory.mkdir()
    for half, split, count in zip(("train", "t10k"), srmnist.load_dataset(), (14, 13), strict=True):
        write_idx(directory / f"{half}-images-idx3-ubyte", split.images[:count, 7:21, 7:21])
    return str(directory)


def settings(device, data, **changes):
    gpu = -1 if device.xp is np else 0
    return Settings(**{"epoch": 2, "batchsize": 8, "size": 7, "data": data, "gpu": gpu, **changes})


def need_figures():
    """Skip a test whose run draws its losses where that cannot be done."""
    for package in ("matplotlib", "cv2"):
        pytest.importorskip(package, reason=f"{package} is not installed")


def trained(device, data, out, resume=None, every=None, **changes):
    need_figures()
    result = train(settings(device, data, **changes), out, resume, io.StringIO(), every)
    return result, results(out)


def loaded(path):
    with np.load(path, allow_pickle=False) as npz:
        return dict(npz)


def test_run_agrees_with_the_cpu_s(on_device, data, tmp_path, monkeypatch):
    found, _ = trained(on_device, data, tmp_path / "there")
    log = json.loads((tmp_path / "there" / "log").read_text())
    monkeypatch.undo()
    expected = train(
        Settings(epoch=2, batchsize=8, size=7, data=data), tmp_path / "here", terminal=io.StringIO()
    )
    here = json.loads((tmp_path / "here" / "log").read_text())
    assert found.mse == pytest.approx(expected.mse, rel=1e-2)
    assert log[0]["main/loss"] == pytest.approx(here[0]["main/loss"], rel=1e-3)  # so the order is the same
    assert [entry["iteration"] for entry in log] == [entry["iteration"] for entry in here]
    # The same names, shapes and dtypes of arrays: either device goes on from the other's.
    there, here = (loaded(tmp_path / place / "snapshot_iter_4.npz") for place in ("there", "here"))
    assert {name: array.shape for name, array in there.items()} == {
        name: array.shape for name, array in here.items()
    }


def test_same_seed_gives_the_same_weights_bit_for_bit(on_device, data, tmp_path):
    first, second, other = (
        trained(on_device, data, tmp_path / name, seed=seed, epoch=1)[1]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == second
    assert first[0] != other[0]


def test_resumed_run_has_the_bits_of_one_that_was_not_interrupted(on_device, data, tmp_path):
    _, expected = trained(on_device, data, tmp_path / "whole", every=1)
    trained(on_device, data, tmp_path / "parts", every=1, epoch=1)
    (tmp_path / "parts" / "snapshot_iter_2.npz").unlink()  # go on from the middle of the epoch
    _, found = trained(on_device, data, tmp_path / "parts", resume=tmp_path / "parts", every=1)
    assert found == expected


def test_resumed_run_of_tuned_has_the_bits_of_one_that_was_not_interrupted(on_device, data, tmp_path):
    """It makes the last step anew, with fixed statistics and the momentum of the steps before."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    flags = {"every": 1, "recipe": "tuned", "batchsize": 4}
    _, expected = trained(on_device, data, whole, **flags)
    shutil.copytree(whole, parts)
    (parts / "snapshot_iter_7.npz").unlink()
    snapshot = loaded(parts / "snapshot_iter_6.npz")
    assert snapshot["updater/optimizer:main/conv2/W/momentum"].any()
    assert snapshot["updater/optimizer:main/conv2/W/t"] == 6
    _, found = trained(on_device, data, parts, resume=parts, **flags)
    assert found == expected


def test_snapshots_go_to_the_cpu_and_back(on_device, data, tmp_path):
    there, moving = tmp_path / "there", tmp_path / "moving"
    trained(on_device, data, there, epoch=1)
    shutil.copytree(there, moving)
    trained(on_device, data, moving, resume=moving, epoch=2, plain=True, gpu=-1)  # by Chainer, on the CPU
    _, found = trained(on_device, data, moving, resume=moving, epoch=3)
    _, expected = trained(on_device, data, there, resume=there, epoch=3)
    assert len(found[1]) == 3
    for one, other in zip(found[1], expected[1], strict=True):
        assert one["main/loss"] == pytest.approx(other["main/loss"], rel=1e-2)
        assert one["validation/main/loss"] == pytest.approx(other["validation/main/loss"], rel=1e-2)


def test_plain_trains_by_chainers_functions_alone(on_device, data, tmp_path, monkeypatch):
    """With the engine out of order, the losses are those of plain Chainer on the CPU."""
    monkeypatch.setattr(updaters.EngineUpdater, "update_core", None)
    monkeypatch.setattr(function, "Restore", None)
    _, (_, found, *_) = trained(on_device, data, tmp_path / "there", plain=True)
    monkeypatch.undo()
    flags = Settings(epoch=2, batchsize=8, size=7, data=data, plain=True)
    train(flags, tmp_path / "here", terminal=io.StringIO())
    _, expected, *_ = results(tmp_path / "here")
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def parts(device, count=20, batchsize=8, optimizer=None, hooks=()):
    """An updater on a device, and the model that it trains."""
    pairs = Pairs(srmnist.load_dataset().train.images[:count, 7:21, 7:21], 7)
    model = initial_model(0)
    if device.xp is not np:
        model.to_device("@cupy:0")
    optimizer = optimizer or chainer.optimizers.Adam()
    optimizer.setup(model)
    for hook in hooks:
        optimizer.add_hook(hook)
    iterator = chainer.iterators.SerialIterator(range(count), batchsize, order_sampler=EpochShuffle(0))
    return resident_updater(iterator, optimizer, pairs), model


def test_an_optimiser_with_a_hook_finds_the_engine_s_gradients(on_device, monkeypatch):
    hooks = chainer.optimizer_hooks.WeightDecay(0.1), chainer.optimizer_hooks.GradientClipping(1e-3)
    updater, model = parts(on_device, hooks=hooks)
    for _ in range(3):
        updater.update()
    assert updater.get_optimizer("main").t == 3
    found = {name: to_host(parameter.array) for name, parameter in model.namedparams()}
    monkeypatch.undo()

    pairs = Pairs(srmnist.load_dataset().train.images[:20, 7:21, 7:21], 7)
    model = initial_model(0)
    optimizer = chainer.optimizers.Adam().setup(model)
    for hook in hooks:
        optimizer.add_hook(hook)
    iterator = chainer.iterators.SerialIterator(range(20), 8, order_sampler=EpochShuffle(0))
    updater = chainer.training.updaters.StandardUpdater(iterator, optimizer, pairs.converter)
    with chainer.using_config("plain", True):
        for _ in range(3):
            updater.update()
    for name, parameter in model.namedparams():
        np.testing.assert_allclose(found[name], parameter.array, rtol=1e-2, atol=2e-4, err_msg=name)


def test_gradients_are_there_between_backward_and_update(on_device):
    seen = []

    class Looking(chainer.optimizers.Adam):
        def update(self, *args, **kwds):
            seen.append({name: to_host(p.grad).copy() for name, p in self.target.namedparams()})
            super().update(*args, **kwds)

    updater, _ = parts(on_device, optimizer=Looking())
    updater.update()
    updater.update()
    assert len(seen) == 2
    assert all(np.abs(gradient).max() > 0 for gradient in seen[1].values())
    assert not np.array_equal(seen[0]["/conv1/W"], seen[1]["/conv1/W"])


def test_the_tuned_recipe_agrees_with_the_cpu_s(on_device, data, tmp_path, monkeypatch):
    pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed, which it needs on the CPU")
    found, _ = trained(on_device, data, tmp_path / "there", recipe="tuned")
    monkeypatch.undo()
    flags = Settings(epoch=2, batchsize=8, size=7, data=data, recipe="tuned")
    expected = train(flags, tmp_path / "here", terminal=io.StringIO())
    assert found.mse == pytest.approx(expected.mse, rel=1e-2)


def test_batches_hold_the_images_that_their_indices_name(on_device):
    pairs = Pairs(srmnist.load_dataset().train.images[:9], 10)
    resident = Resident(on_device, pairs)
    for batch in ([3, 4, 5], [5, 3, 4], [7], [2, 2], [1, 3, 2, 4], [8, 0]):
        x, t = resident(batch)
        np.testing.assert_array_equal(to_host(x), pairs.batch(batch)[0])
        np.testing.assert_array_equal(to_host(t), pairs.batch(batch)[1])


def test_the_evaluation_is_the_mean_over_batches_as_on_the_cpu(on_device, data, tmp_path, monkeypatch):
    model = initial_model(3)
    pairs = [Pairs(split.images, 7) for split in srmnist.load_dataset(data)]

    def evaluated(model):
        trainer = build_trainer(model, *pairs, Settings(batchsize=8), tmp_path, io.StringIO())
        return float(trainer.get_extension("validation")(trainer)["validation/main/loss"])

    there = model.copy(mode="copy")
    if on_device.xp is not np:
        there.to_device("@cupy:0")
    found = evaluated(there)
    monkeypatch.undo()
    assert found == pytest.approx(evaluated(model), rel=1e-5)


def test_the_evaluation_follows_the_weights_and_leaves_the_gradients_alone(on_device):
    updater, model = parts(on_device)
    pairs = Pairs(srmnist.load_dataset().train.images[:20, 7:21, 7:21], 7)
    converter, evaluate = resident_evaluation(updater, pairs)
    batch, gradient = [3, 1, 4, 5], updater.vectors.arrays["gradient"]

    def expected():
        with chainer.using_config("train", False), chainer.using_config("plain", True):
            return float(model(*Resident(on_device, pairs)(batch)).array)

    losses = []
    for _ in range(3):  # as launched, and as captured
        updater.update()
        before = to_host(gradient).copy()
        losses.append(float(evaluate(*converter(batch))))
        assert losses[-1] == pytest.approx(expected(), rel=1e-4)
        np.testing.assert_array_equal(to_host(gradient), before)
    assert len(set(losses)) == 3


def test_diverged_run_stops_and_leaves_no_snapshot_of_it(on_device, data, tmp_path, monkeypatch):
    """As on the CPU: the first convolution overflows, and the loss must say so."""

    def diverged(seed, recipe):
        model = initial_model(seed, recipe)
        model.conv1.W.array[...] = 3e38
        return model

    monkeypatch.setattr(runs, "initial_model", diverged)
    with pytest.raises(srmnist.UserError, match="diverged: main/loss is nan at iteration 1"):
        trained(on_device, data, tmp_path)
    assert not list(tmp_path.glob("snapshot*"))


class Late(np.ndarray):
    """A loss on a device, for which one has to wait."""

    waits = 0

    def __float__(self) -> float:
        Late.waits += 1
        return float(self.item())


def late(value: float) -> Late:
    return np.array(value, np.float32).view(Late)


@pytest.fixture
def trainer(monkeypatch, tmp_path):
    """A trainer whose losses are on a device."""
    monkeypatch.setattr(reports.cuda, "ndarray", Late)
    monkeypatch.setattr(Late, "waits", 0)

    class Updater:
        iteration, is_new_epoch = 0, False

    class Trainer:
        updater, observation, out = Updater(), {}, tmp_path

    return Trainer()


def observe(trainer, extension, *losses):
    for loss in losses:
        trainer.updater.iteration += 1
        trainer.observation = {"main/loss": loss}
        extension(trainer)


def test_losses_on_a_device_are_waited_for_once_a_second_only(trainer, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(divergence.time, "monotonic", lambda: now[0])
    extension = divergence.StopIfDiverged()
    for second in range(3):
        now[0] = second + 0.5
        observe(trainer, extension, *(late(0.1) for _ in range(100)))
    now[0] = 3.6
    observe(trainer, extension, late(0.1))
    assert Late.waits <= 4


def test_a_loss_on_a_device_that_is_not_finite_is_named_with_its_iteration(trainer):
    extension = divergence.StopIfDiverged()
    observe(trainer, extension, *map(late, (0.1, 0.2, np.nan, np.nan)))
    trainer.updater.is_new_epoch = True
    with pytest.raises(srmnist.UserError, match="diverged: main/loss is nan at iteration 3"):
        observe(trainer, extension, late(np.nan))


def test_memory_that_a_run_takes_grows_with_the_batch_and_the_data(data):
    from srmnist.engine.gpu.updater import resident_bytes

    dataset = srmnist.load_dataset(data)
    images = [split.images for split in dataset]
    small, large = (resident_bytes(size, *images) for size in (1, 2))
    assert 0 < small < large
    assert plan.size_in_bytes(plan.Shape(64, 28, 28)) < 100 * 2**20
    more = [np.concatenate([half, half]) for half in images]
    assert resident_bytes(1, *more) - small == sum(half.size for half in images)  # a byte a pixel


# From here on: the scripts, as a user runs them, on a GPU.


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with data and a run of three epochs that nothing has touched."""
    if why_no_gpu():
        pytest.skip(why_no_gpu())
    need_figures()
    home = tmp_path_factory.mktemp("home")
    small_data(home / "data")
    finish(train_command(TRAIN, home / "data", "--gpu", 0, "--epoch", 3), home / "untouched")
    return home


@pytest.mark.gpu
def test_training_resuming_and_showing_results_through_the_scripts(home, tmp_path):
    command = train_command(TRAIN, home / "data", "--gpu", 0)
    done = run([*command, "--epoch", "2", "--out", str(tmp_path / "out")])
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"validation MSE 0\.\d+, PSNR", done.stdout)
    finish([*command, "--epoch", "3"], tmp_path / "out")
    assert results(tmp_path / "out") == results(home / "untouched")
    flags = ["--gpu", "0", "--data", str(home / "data"), "--model", "out/model.npz", "-o", "out"]
    shown = run([sys.executable, str(SCRIPTS / "show_results.py"), *flags], cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert (tmp_path / "out" / "output.png").exists()


@pytest.mark.gpu
def test_plain_on_the_gpu_says_nothing_on_stderr(home, tmp_path):
    done = run(
        [*train_command(TRAIN, home / "data", "--gpu", 0, "--plain", "--epoch", 1), "--out", str(tmp_path)]
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.gpu
def test_an_id_that_no_gpu_has_gets_one_line(home, tmp_path):
    line = refusal(run([*train_command(TRAIN, home / "data", "--gpu", 99), "--out", str(tmp_path / "out")]))
    assert "--gpu 99: no such GPU" in line
    assert not (tmp_path / "out").exists()


# Leaves a device a limited amount of memory, then runs the script that follows.
LIMITED = """
import runpy, sys
import srmnist, cupy
limit = int(sys.argv[1])
cupy.get_default_memory_pool().set_limit(size=limit)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.gpu
def test_too_little_memory_gets_one_line_and_keeps_the_snapshot(home, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(home / "untouched", out)
    (out / "model.npz").unlink()
    before = {path: content for path, content in tree(out).items() if "snapshot" in path.name}
    python, *rest = train_command(TRAIN, home / "data", "--gpu", 0, "--epoch", 4, "--out", out, "--resume")
    line = refusal(run([python, "-c", LIMITED, str(2**20), *rest]))
    assert re.search(r"--gpu 0: out of the device's memory .*MiB are needed; a smaller --batchsize", line)
    assert {path: content for path, content in tree(out).items() if "snapshot" in path.name} == before


@pytest.mark.gpu
def test_ten_epochs_reach_the_reference_s_error():
    if why_no_gpu():
        pytest.skip(why_no_gpu())
    result = train(Settings(gpu=0), terminal=io.StringIO())
    assert result.mse <= 0.0152
