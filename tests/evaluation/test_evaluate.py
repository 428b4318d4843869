"""An evaluation measures what it says, and what cannot be measured it leaves out."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from srmnist.evaluation.evaluate import evaluate
from srmnist.evaluation.metrics_file import load_metrics
from srmnist.system.files import FileError
from srmnist.figures import draw_psnr, draw_sizes, png
from srmnist.training.trainer import initial_model
from srmnist.weights import save

from conftest import decode, write_idx

ROWS = ["degraded", "nearest", "cubic", "Lanczos", "restored", "original"]


def strict_json(path: Path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """File of a model's weights before any training."""
    file = tmp_path_factory.mktemp("weights") / "model.npz"
    save(file, initial_model(0))
    return file


@pytest.fixture(scope="module")
def measured(weights, small_mnist, tmp_path_factory):
    """An evaluation of MNIST's first 64 test images: its table, its ``metrics.json`` and its directory."""
    table, out = io.StringIO(), tmp_path_factory.mktemp("measured")
    files = evaluate(weights, out, str(small_mnist), terminal=table)
    assert [file.name for file in files] == ["metrics.json", "metrics.png", "hardest.png"]
    return table.getvalue(), strict_json(out / "metrics.json"), out


def test_report_holds_the_measures_by_their_definition(measured, weights, mnist):
    _, report, _ = measured
    assert list(report["rows"]) == ROWS
    assert (report["images"], report["neighbours"], report["size"]) == (64, 256, 10)
    originals = mnist[1][:64]
    degraded = srmnist.degrade(originals)
    restored = srmnist.restore(degraded, srmnist.load_weights(weights, srmnist.CNNAE()))
    labels = srmnist.load_dataset().test.labels[:64]
    known = srmnist.load_dataset().train.labels[:256]
    for name, images in (("degraded", degraded), ("restored", restored), ("original", originals)):
        row = report["rows"][name]
        distances = ((images - mnist[0][:256].swapaxes(0, 1)) ** 2).sum(axis=(2, 3))
        assert row["readability"] == np.mean(known[distances.argmin(axis=1)] == labels)
        errors = ((images - originals).astype(np.float64) ** 2).mean(axis=(1, 2, 3))
        assert row["mse"] == pytest.approx(errors.mean(), abs=1e-7)
        if name != "original":
            assert row["psnr_mean"] == pytest.approx(np.mean(10 * np.log10(1 / errors)), abs=1e-4)
            assert row["psnr_of_mse"] == pytest.approx(10 * np.log10(1 / errors.mean()), abs=1e-4)
    assert report["rows"]["original"] == {
        "mse": 0,
        "psnr_mean": None,
        "psnr_of_mse": None,
        "ssim": 1,
        "readability": row["readability"],
    }


def test_classes_are_means_over_their_images(measured):
    _, report, _ = measured
    labels = srmnist.load_dataset().test.labels[:64]
    assert list(report["classes"]) == [str(digit) for digit in range(10)]
    for name in ("degraded", "restored"):
        for measure in ("mse", "psnr_mean", "ssim", "readability"):
            by_class = [report["classes"][str(label)][name][measure] for label in labels]
            assert np.mean(by_class) == pytest.approx(report["rows"][name][measure])


def test_table_is_the_report_and_fits_a_terminal(measured):
    table, report, _ = measured
    lines = table.splitlines()
    assert max(map(len, lines)) < 80
    for name, line in zip(ROWS, lines[1:7], strict=True):
        row = report["rows"][name]
        assert line.split()[:2] == [name, f"{row['mse']:.6f}"]
        assert line.split()[-1] == f"{row['readability']:.3f}"
    assert [line.split()[0] for line in lines[9:]] == [str(digit) for digit in range(10)]


def test_hardest_shows_the_twelve_images_restored_worst(measured, weights):
    originals = srmnist.load_mnist()[1][:64]
    degraded = srmnist.degrade(originals)
    restored = srmnist.restore(degraded, srmnist.load_weights(weights, srmnist.CNNAE()))
    errors = ((restored - originals) ** 2).mean(axis=(1, 2, 3))
    order = np.argsort(-errors)[:12]
    expected = png(srmnist.show_grid(degraded[order], restored[order], originals[order]))
    np.testing.assert_array_equal(decode((measured[2] / "hardest.png").read_bytes()), decode(expected))


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_files_are_written_though_the_table_is_not(weights, small_mnist, tmp_path):
    with pytest.raises(OSError, match="No space left"):
        evaluate(weights, tmp_path, str(small_mnist), terminal=Broken())
    assert strict_json(tmp_path / "metrics.json")["images"] == 64


def test_images_without_labels_are_not_read(weights, small_mnist, tmp_path):
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (tmp_path / name).write_bytes((small_mnist / name).read_bytes())
    table = io.StringIO()
    evaluate(weights, tmp_path / "out", str(tmp_path), terminal=table)
    report = strict_json(tmp_path / "out" / "metrics.json")
    assert report["classes"] == {}
    assert {row["readability"] for row in report["rows"].values()} == {None}
    assert len(table.getvalue().splitlines()) == 7


@pytest.mark.parametrize(("half", "missing"), [("train", "(no 1-NN)"), ("t10k", "(no 1-NN, no classes)")])
def test_labels_that_cannot_be_used_are_named_and_the_rest_is_measured(
    half, missing, weights, small_mnist, tmp_path, capsys
):
    data = shutil.copytree(small_mnist, tmp_path / "data")
    labels = data / f"{half}-labels-idx1-ubyte"
    labels.write_text("five\n")
    evaluate(weights, tmp_path / "out", str(data), terminal=io.StringIO())
    report = strict_json(tmp_path / "out" / "metrics.json")
    assert {row["readability"] for row in report["rows"].values()} == {None}
    assert len(report["classes"]) == (10 if half == "train" else 0)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{labels}: ")
    assert line.endswith(missing)


def test_images_too_small_for_ssim_are_measured_without(weights, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 13), np.uint8)
    for half in ("train", "t10k"):
        write_idx(tmp_path / f"{half}-images-idx3-ubyte", images)
    evaluate(weights, tmp_path, str(tmp_path), size=5, terminal=io.StringIO())
    rows = strict_json(tmp_path / "metrics.json")["rows"]
    assert {row["ssim"] for row in rows.values()} == {None}
    assert rows["restored"]["mse"] > 0


def test_images_that_are_not_shrunk_have_no_error(weights, small_mnist, tmp_path):
    evaluate(weights, tmp_path, str(small_mnist), size=28, terminal=io.StringIO())
    report = strict_json(tmp_path / "metrics.json")
    assert report["rows"]["degraded"]["mse"] == pytest.approx(0, abs=1e-12)
    assert (tmp_path / "metrics.png").exists()


def test_distribution_leaves_infinite_values_out():
    (ax,) = draw_psnr({"degraded": np.array([np.inf, 10, 20]), "restored": np.array([np.inf])}).axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["degraded, mean 15.00 dB"]
    assert sum(patch.get_height() for patch in ax.patches) == 2


def test_sizes_are_drawn_in_order_for_each_data_set(measured, tmp_path):
    _, report, _ = measured
    reports = []
    for data, size, psnr in (("a", 14, 3), ("a", 7, 2), ("b", 7, 1)):
        row = {**report["rows"]["restored"], "psnr_mean": psnr}
        rows = {name: row for name in ("degraded", "restored", "original")}
        reports.append({**report, "data": data, "size": size, "rows": rows})
    psnr, readability = draw_sizes(reports).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in psnr.lines}
    assert lines["a, restored"] == [[7, 2], [14, 3]]
    assert lines["b, restored"] == [[7, 1]]
    assert len(readability.lines) == 6


def test_reports_are_read_back(measured):
    _, report, out = measured
    assert load_metrics([out / "metrics.json"]) == [report]


@pytest.mark.parametrize(
    "text", ["", "no", "[]", "{}", '{"size": 3, "data": "x", "rows": {"degraded": 1}}', "[" * 9999]
)
def test_what_is_no_report_is_refused(text, tmp_path):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(FileError, match=r"metrics\.json"):
        load_metrics([tmp_path / "metrics.json"])
