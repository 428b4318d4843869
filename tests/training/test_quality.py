"""The figure of the recipes shows what the logs of the runs say."""

import json

import pytest

import srmnist  # first: it makes Chainer import  # noqa: F401  # isort: skip
from srmnist.training.quality import load_pytorch_ratio, load_quality
from srmnist.figures import draw_quality, png
from srmnist.system.files import FileError


def write_log(path, errors, seconds):
    """A log as train.py writes it: an entry for each epoch, `seconds` apart."""
    path.mkdir(parents=True)
    entries = [
        {"validation/main/loss": error, "epoch": epoch, "elapsed_time": epoch * seconds}
        for epoch, error in enumerate(errors, 1)
    ]
    (path / "log").write_text(json.dumps(entries))


@pytest.fixture
def runs(tmp_path):
    write_log(tmp_path / "article-0", [9, 7], 1000)
    write_log(tmp_path / "article-1", [7, 5], 1000)
    write_log(tmp_path / "article-1-3-epochs", [7, 5, 4], 1000)
    write_log(tmp_path / "tuned-0-1-epoch", [3], 1000)
    write_log(tmp_path / "tuned-0", [8, 2], 1000)
    write_log(tmp_path / "tuned-1", [8, 1], 1000)
    write_log(tmp_path / "quiet" / "article", [1, 1], 10)
    write_log(tmp_path / "quiet" / "tuned", [1], 12)
    return tmp_path


def test_errors_are_means_over_seeds_at_the_seconds_of_a_quiet_machine(runs):
    """Each epoch of the article's recipe is a point; of a run whose rate falls, only the last is one."""
    assert load_quality(runs) == {
        "article": [(10, 8, 2), (20, 6, 2), (30, 4, 1)],
        "tuned": [(12, 3, 1), (24, 1.5, 2)],
    }


def test_each_way_to_train_is_a_line_over_the_logarithm_of_seconds(runs):
    """The marks of single seeds are drawn over it, hollow."""
    figure = draw_quality(load_quality(runs))
    (ax,) = figure.axes
    assert ax.get_xscale() == "log"
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert lines["tuned"] == [[12, 3], [24, 1.5]]
    hollow = [line.get_xydata().tolist() for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert hollow == [[[30, 4]], [[12, 3]]]
    assert png(figure)


@pytest.mark.parametrize("text", ["no", "{}", "[]", "[3]", '[{"epoch": 1}]', "[" * 9999])
def test_what_is_no_log_is_refused(runs, text):
    (runs / "tuned-1" / "log").write_text(text)
    with pytest.raises(FileError, match=r"tuned-1.log: not a log"):
        load_quality(runs)


def test_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(FileError, match="no article-SEED"):
        load_quality(tmp_path)


def test_times_without_a_quiet_run_are_refused(runs):
    (runs / "quiet" / "tuned" / "log").unlink()
    with pytest.raises(FileError, match=r"quiet.tuned.log"):
        load_quality(runs)


def test_pytorch_s_time_is_in_proportion_to_the_benchmark(tmp_path):
    file = tmp_path / "benchmark.json"
    file.write_text('{"variants": {"srmnist engine": {"step_ms": 2}, "torch.compile": {"step_ms": 5}}}')
    assert load_pytorch_ratio(file) == 2.5
    file.write_text('{"variants": {"srmnist engine": {"step_ms": 2}}}')
    with pytest.raises(FileError, match=r"benchmark\.json: it has no times of"):
        load_pytorch_ratio(file)
