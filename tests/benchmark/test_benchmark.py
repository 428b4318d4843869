"""The benchmark measures what it says, on a small scale."""

import importlib.machinery
import runpy
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
import chainer
from conftest import ROOT
from srmnist.benchmark import comparison, measure, output, variants

needs_numba = pytest.mark.skipif(
    importlib.machinery.PathFinder.find_spec("numba") is None,
    reason="Numba is not installed: there is no engine to time",
)


def test_a_step_counts_the_convolutions_multiplications_and_additions():
    # 23,760 multiplications a pixel forward; backward twice that, without the 144 of the input's gradient.
    assert measure.flops(1, train=False) == 2 * 23_760 * 784
    assert measure.flops(64, train=True) == 2 * 64 * 784 * (3 * 23_760 - 144)


@needs_numba
def test_all_of_chainers_variants_train_and_take_turns():
    made = variants.variants(variants.CHAINERS)
    times = measure.measure(made, batch=2, rounds=1, warmup=0)
    assert set(times) == set(variants.CHAINERS)
    assert all(time > 0 for kinds in times.values() for time in kinds.values())


def test_measurements_begin_and_end_with_an_idle_device_and_variants_take_turns():
    events = []

    def noting(name):
        return variants.Variant(*(lambda _, kind=kind: events.append((name, kind)) for kind in measure.KINDS))

    made = {name: noting(name) for name in ("a", "b")}
    times = measure.measure(made, 4, 2, warmup=1, runs=3, synchronise=lambda: events.append("idle"))
    assert all(value > 0 for row in times.values() for value in row.values())
    expected = []
    for run in [(name, kind) for name in made for kind in measure.KINDS] * 3:
        expected += [run, *["idle", run, run, run, "idle"] * measure._TURN]
    assert events == expected


@needs_numba
def test_the_growth_has_a_row_for_each_variant_threads_and_batch():
    rows = measure.growth([variants.ENGINE], batches=[1, 3], counts=[1])
    assert [(row["threads"], row["batch"]) for row in rows] == [(1, 1), (1, 3)]


@needs_numba
@pytest.mark.parametrize(("most", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_threads_grow_to_as_many_as_the_computer_has(monkeypatch, most, counts):
    monkeypatch.setattr("srmnist.engine.cpu.threads.thread_count", lambda: most)
    assert measure.thread_counts() == counts


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes_where_there_is_no_proc(monkeypatch, tmp_path, platform, unit):
    """getrusage tells kilobytes on Linux and bytes on macOS."""
    fake = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=5000))
    monkeypatch.setitem(sys.modules, "resource", fake)
    monkeypatch.setattr(measure.sys, "platform", platform)
    assert measure.peak_resident_bytes(tmp_path / "none") == 5000 * unit
    (tmp_path / "status").write_text("VmPeak:\t 9 kB\nVmHWM:\t  7 kB\n")
    assert measure.peak_resident_bytes(tmp_path / "status") == 7 * 1024


def test_a_pytorch_that_cannot_compute_is_left_out_and_said(monkeypatch, capsys):
    def make(name, *args):
        def run(indices):
            if name == variants.COMPILED:
                raise RuntimeError("Cannot find a working triton installation\nMuch advice.")

        return variants.Variant(run, run)

    monkeypatch.setattr(variants, "make_variant", make)
    found = variants.variants([variants.ENGINE, *variants.GPU_TORCHES], 0, 4)
    assert set(variants.GPU_TORCHES) - set(found) == {variants.COMPILED}
    assert capsys.readouterr().err == "torch.compile is left out: Cannot find a working triton installation\n"


@pytest.mark.parametrize("name", variants.TORCHES)
def test_pytorch_trains_and_evaluates_on_the_cpu(name):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    made = variants.make_variant(name, *np.random.default_rng(0).random((2, 8, 1, 28, 28), np.float32))
    made.step(np.arange(4))
    made.evaluate(np.arange(4))
    assert torch.is_grad_enabled()


@pytest.fixture
def result():
    row = {
        "step_ms": 20.0,
        "evaluate_ms": 4.0,
        "step_gflops": 350.0,
        "epoch_s": 19.0,
        "peak_memory_mb": 700.0,
    }
    slow = {**row, "step_ms": 50.0, "evaluate_ms": 10.0}
    rows = {variants.ENGINE: row, variants.PLAIN: {**row, "step_ms": 600.0}, variants.EAGER: slow}
    growth = [
        {"variant": variants.ENGINE, "threads": threads, "batch": batch, "step": batch / threads}
        for threads in (1, 2)
        for batch in (1, 64)
    ]
    return {
        "machine": "a processor, 2 cores, 2 threads",
        "versions": {"chainer": "7.8.1"},
        "batch": 64,
        "matrix_product_gflops": 400.0,
        "variants": rows,
        "speedup": comparison._speedups(rows),
        "growth": growth,
    }


def test_the_table_fits_a_narrow_terminal_and_names_the_ratios(result):
    text = comparison.table(result)
    assert max(map(len, text.splitlines())) <= 79
    assert "the fastest PyTorch: step × 2.50, evaluation × 2.50" in text
    assert "plain Chainer: step × 30.00" in text
    assert "700 MB" in text


def test_the_table_of_a_gpu_fits_too_and_shows_microseconds(result):
    del result["growth"]
    result["variants"][variants.ENGINE]["step_ms"] = 0.2345
    text = comparison.table(result | {"ten_epochs": {"seconds": 5.0, "mse": 0.0148}})
    assert max(map(len, text.splitlines())) <= 79
    assert "0.234 ms" in text
    assert "ten epochs with evaluation: 5.0 s, validation MSE 0.014800" in text


def test_the_figure_draws_every_variant_and_every_curve(result):
    bars, curves = comparison.figure(result).axes
    assert [text.get_text() for text in bars.get_yticklabels()] == [variants.ENGINE, variants.EAGER]
    assert len(curves.get_lines()) == 2


def test_files_that_cannot_be_written_are_refused_before_anything_is_measured(tmp_path):
    output.require_writable(None)
    output.require_writable(tmp_path / "figures.json")
    assert not list(tmp_path.iterdir())
    with pytest.raises(srmnist.UserError, match=r"figures\.json: cannot be written: No such file"):
        output.require_writable(tmp_path / "none" / "figures.json")
    with pytest.raises(srmnist.UserError, match="is a directory"):
        output.require_writable(tmp_path)


def test_without_numba_the_cpu_s_benchmark_says_what_to_install_and_the_gpu_s_does_not_ask(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(srmnist.UserError, match=r"no engine to time: .*numba.*; pip install numba"):
        comparison.run(4, 1)
    monkeypatch.setattr(chainer.backends.cuda, "available", False)
    with pytest.raises(srmnist.UserError, match="--gpu 0: CuPy"):
        comparison.run(4, 1, gpu=0)


def test_a_benchmark_of_no_rounds_is_refused_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--rounds", "0"])
    with pytest.raises(SystemExit) as refused:
        runpy.run_path(str(ROOT / "scripts" / "benchmark.py"))["main"]()
    assert refused.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
