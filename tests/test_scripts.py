"""The scripts, run as a user runs them: what they say, what they write, how they refuse."""

import json
import os
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
import chainer
from helpers.forks import run_forked
from helpers.users import SCRIPTS, refusal, run, tree
from srmnist.soak.small_runs import small_data
from test_model import PARAMETERS, STATISTICS


@pytest.fixture(scope="module")
def trained(script, small_mnist, tmp_path_factory):
    """One epoch through scripts/train.py into the default directory."""
    directory = tmp_path_factory.mktemp("user")
    done = script("train.py", "--epoch", 1, "--data", small_mnist, cwd=directory)
    assert done.returncode == 0, done.stderr
    return directory, done


@pytest.fixture(scope="module")
def shown(script, small_mnist, trained):
    """The figures of that epoch's model, into the default directory."""
    directory, _ = trained
    done = script("show_results.py", "--data", small_mnist, cwd=directory)
    assert done.returncode == 0, done.stderr
    return directory / "results", done


def read_png(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, f"{path} is no image"
    return image


def test_training_prints_its_table_and_what_it_came_to(trained):
    _, done = trained
    assert done.stderr == ""
    header, epoch, summary, *_, written = done.stdout.splitlines()
    assert header.split() == ["epoch", "main/loss", "validation/main/loss", "elapsed_time"]
    assert epoch.split()[0] == "1"
    number = r"\d+\.\d+"
    assert re.match(
        rf"validation MSE {number}, PSNR {number} dB \(degraded input: {number}, {number} dB\); "
        r"[\d,]+ images/s, \d+ s",
        summary,
    )
    assert "results/model.npz" in written


def test_training_writes_weights_under_the_article_s_names(trained):
    directory, _ = trained
    with np.load(directory / "results" / "model.npz") as npz:
        assert sorted(npz) == sorted([*PARAMETERS, *STATISTICS, *(f"bn{number}/N" for number in (1, 2, 3))])
        assert npz["conv3/W"].shape == (64, 32, 3, 3)


def test_training_writes_a_json_log(trained):
    directory, _ = trained
    (entry,) = json.loads((directory / "results" / "log").read_text())
    assert {"epoch", "iteration", "main/loss", "validation/main/loss", "elapsed_time"} <= entry.keys()


def test_the_same_command_writes_the_same_file(script, tmp_path):
    # Python gives strings other hashes, and so sets of names another order, in each process.
    small_data(tmp_path / "data", 64, 16)
    for name in ("1", "2"):
        command = ("train.py", "--epoch", 1, "--data", tmp_path / "data", "-o", name)
        done = script(*command, cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": name})
        assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / name / "model.npz").read_bytes() for name in ("1", "2"))
    assert first == second


def test_every_file_is_named_on_the_last_line(shown):
    results, done = shown
    assert done.stderr == ""
    written = done.stdout.splitlines()[-1].removeprefix("written: ").split()
    names = ["corrupt.png", "model.png", "output.png"]
    names += [f"{kind}_{number:02d}.png" for number in range(10) for kind in ("input", "output")]
    names.append("learning.gif")  # of the run that has left its weights there
    assert written == [f"results/{name}" for name in names]
    assert all((results / name).is_file() for name in names)


def test_pairs_are_28_by_28_in_grey(shown):
    results, _ = shown
    for number in range(10):
        for kind in ("input", "output"):
            image = read_png(results / f"{kind}_{number:02d}.png")
            assert (image.shape, image.dtype) == ((28, 28), np.uint8)


def test_pairs_are_test_digits_and_what_the_weights_make_of_them(shown, small_mnist):
    results, _ = shown
    model = srmnist.load_weights(results / "model.npz", srmnist.CNNAE())
    degraded = srmnist.degrade(srmnist.load_mnist()[1][:64])
    restored = srmnist.restore(degraded, model)
    inputs, outputs = ((images[:, 0] * 255).astype(np.uint8) for images in (degraded, restored))
    for number in range(10):
        (index,) = np.flatnonzero((inputs == read_png(results / f"input_{number:02d}.png")).all((1, 2)))
        found = read_png(results / f"output_{number:02d}.png").astype(int)
        assert np.abs(found - outputs[index]).max() <= 1  # a batch of another size may round differently


def test_figures_are_wide_enough_for_a_readme(shown):
    results, _ = shown
    for name, smallest in (("corrupt", (600, 1200)), ("model", (400, 2000)), ("output", (500, 1800))):
        height, width, _ = read_png(results / f"{name}.png").shape
        assert height >= smallest[0]
        assert width >= smallest[1]


def test_one_s_own_image_is_restored_and_every_file_named(script, home):
    done = script("restore.py", "seven.png", "--model", "good.npz", "--out", "new", cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "written: new/seven_restored.png new/seven_compared.png\n"
    assert read_png(home / "new" / "seven_restored.png").shape == (28, 28)
    assert read_png(home / "new" / "seven_compared.png").shape[2] > 2


def test_trained_weights_are_evaluated_exported_and_compared(script, small_mnist, trained):
    directory, _ = trained
    measured = script("evaluate.py", "--data", small_mnist, cwd=directory)
    assert (measured.returncode, measured.stderr) == (0, "")
    written = "results/metrics.json results/metrics.png results/hardest.png"
    assert measured.stdout.splitlines()[-1] == f"written: {written}"
    drawn = script("plot_sizes.py", "results/metrics.json", cwd=directory)
    assert (drawn.returncode, drawn.stderr, drawn.stdout) == (0, "", "written: results/sizes.png\n")
    for name in ("metrics", "hardest", "sizes"):
        assert min(read_png(directory / "results" / f"{name}.png").shape[:2]) > 300
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    for flags, written in (((), "results/model.onnx"), (("-o", "new/m.onnx"), "new/m.onnx")):
        exported = script("export_onnx.py", *flags, cwd=directory)
        assert (exported.returncode, exported.stderr) == (0, "")
        assert exported.stdout.splitlines()[-1] == f"written: {written}"
        assert (directory / written).is_file()


def test_help_names_every_flag(script, tmp_path):
    for name, flags in (
        ("train.py", "-g -e -b -o -r --gpu --epoch --batchsize --out --resume --seed --data --size --recipe"),
        ("show_results.py", "-o --model --out --gpu --data --size --seed --hardest"),
        ("evaluate.py", "-o --model --out --gpu --data --size"),
        ("restore.py", "-o --model --out --gpu --size --invert --no-degrade"),
        ("export_onnx.py", "-o --model --out"),
        ("plot_sizes.py", "-o --out"),
        ("plot_quality.py", "-o --out --benchmark"),
    ):
        done = script(name, "--help", cwd=tmp_path)
        assert done.returncode == 0
        assert set(flags.split()) <= set(re.findall(r"(?<!\w)--?[\w-]+", done.stdout))


@pytest.fixture
def home(tmp_path, small_mnist) -> Path:
    """A user's directory with some files that are not what a script hopes for."""
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "noise.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "others.npz", **{"conv1/W": np.zeros((16, 1, 3, 3), np.float32)})
    model = srmnist.CNNAE()
    state = chainer.serializers.npz.serialize(model)
    np.savez(tmp_path / "wide.npz", **{**state, "conv1/W": np.zeros((16, 1, 5, 5), np.float32)})
    np.savez(tmp_path / "good.npz", **state)
    assert cv2.imwrite(str(tmp_path / "seven.png"), srmnist.load_dataset().test.images[0])
    row = {"psnr_mean": 20, "readability": 0.9}
    metrics = {"data": "a", "size": 10, "rows": dict.fromkeys(("degraded", "restored", "original"), row)}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "link.json").symlink_to("metrics.json")
    (tmp_path / "empty").mkdir()
    (tmp_path / "short").mkdir()
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (tmp_path / "short" / name).write_bytes((small_mnist / name).read_bytes()[:-1])
    return tmp_path


BAD = {
    "no epochs": ("train.py --epoch 0", "--epoch"),
    "epochs that are no number": ("train.py --epoch ten", "--epoch"),
    "no batch": ("train.py --batchsize 0", "--batchsize"),
    "no size": ("train.py --size 0", "--size"),
    "unknown flag": ("train.py --epochs-please", "--epochs-please"),
    "no such GPU": ("train.py --gpu 99", "--gpu 99"),
    "out is a file": ("train.py --data MNIST --out file", "file"),
    "out cannot be made": ("train.py --data MNIST --out file/results", "file"),
    "no such snapshot": ("train.py --data MNIST --out new --resume absent.npz", "absent.npz"),
    "no snapshot in out": ("train.py --data MNIST --out empty --resume", "empty"),
    "no such data": ("train.py --data absent --out new", "absent"),
    "data without files": ("train.py --data empty --out new", "empty"),
    "data cut short": ("train.py --data short --out new", "short/train-images-idx3-ubyte"),
    "no such weights": ("show_results.py --data MNIST --model absent.npz --out new", "absent.npz"),
    "default weights missing": ("show_results.py", "results/model.npz"),
    "weights that are no npz": ("show_results.py --model noise.npz --out new", "noise.npz"),
    "weights of another network": ("show_results.py --model others.npz --out new", "others.npz"),
    "weights of another shape": ("show_results.py --model wide.npz --out new", "(16, 1, 5, 5)"),
    "figures into a file": ("show_results.py --data MNIST --model good.npz --out file", "--out"),
    "figures on no such GPU": ("show_results.py --model good.npz --gpu 99", "--gpu 99"),
    "figures of no data": ("show_results.py --model good.npz --data empty --out new", "empty"),
    "unknown recipe": ("train.py --recipe secret --out new", "--recipe"),
    "evaluation without weights": ("evaluate.py --model absent.npz --out new", "absent.npz"),
    "evaluation of no data": ("evaluate.py --model good.npz --data empty --out new", "empty"),
    "evaluation larger than the images": ("evaluate.py --model good.npz --size 29 --out new", "--size 29"),
    "evaluation on no such GPU": ("evaluate.py --model good.npz --gpu 99", "--gpu 99"),
    "no image to restore": ("restore.py --model good.npz", "IMAGE"),
    "absent image": ("restore.py absent.png --model good.npz --out new", "absent.png"),
    "image that is none": ("restore.py file --model good.npz --out new", "file"),
    "image restored into a file": ("restore.py seven.png --model good.npz --out file", "--out"),
    "image restored with no weights": ("restore.py seven.png --out new", "results/model.npz"),
    "size to shrink to above 28": ("restore.py seven.png --model good.npz --size 29", "--size 29"),
    "export of no weights": ("export_onnx.py --model absent.npz", "absent.npz"),
    "export into a file": ("export_onnx.py --model good.npz --out file/model.onnx", "file"),
    "export over its weights": (
        "export_onnx.py --model good.npz --out good.npz",
        "good.npz: this file is an",
    ),
    "figure over its numbers": (
        "plot_sizes.py metrics.json --out link.json",
        "link.json: this file is an input",
    ),
    "no logs of runs": ("plot_quality.py empty --out new/quality.png", "empty"),
    "absent report": ("plot_sizes.py absent.json --out new/sizes.png", "absent.json"),
    "report that is none": ("plot_sizes.py file --out new/sizes.png", "file"),
    "negative seed of figures": ("show_results.py --model good.npz --seed -1 --out new", "--seed"),
}


# These run as processes of their own; the others as forks of this one.
REAL = {"unknown flag", "data cut short", "weights of another shape"}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(home, small_mnist, case):
    command, blamed = BAD[case]
    before = tree(home)
    name, *args = command.split()
    run_it = run if case in REAL or not hasattr(os, "fork") else run_forked
    args = [str(small_mnist) if arg == "MNIST" else arg for arg in args]
    done = run_it([sys.executable, str(SCRIPTS / name), *args], cwd=home)
    assert blamed in refusal(done)
    assert done.stdout == ""
    assert tree(home) == before
    assert not (home / "new").exists()
