"""The benchmark measures what it says, on a small scale."""

import pytest

import srmnist  # noqa: F401 – first: it makes Chainer import

pytest.importorskip("numba", reason="Numba is not installed: there is no engine to time")
from srmnist.benchmark import measure, report, variants


def test_a_step_counts_the_convolutions_multiplications_and_additions():
    # 23,760 multiplications a pixel forward; backward twice that, without the 144 of the input's gradient.
    assert measure.flops(1, train=False) == 2 * 23_760 * 784
    assert measure.flops(64, train=True) == 2 * 64 * 784 * (3 * 23_760 - 144)


def test_all_of_chainers_variants_train_and_take_turns():
    made = variants.variants(variants.CHAINERS)
    times = measure.measure(made, batch=2, rounds=1, warmup=0)
    assert set(times) == set(variants.CHAINERS)
    assert all(time > 0 for kinds in times.values() for time in kinds.values())


def test_the_growth_has_a_row_for_each_variant_threads_and_batch():
    rows = measure.growth([variants.ENGINE], batches=[1, 3], counts=[1])
    assert [(row["threads"], row["batch"]) for row in rows] == [(1, 1), (1, 3)]


@pytest.fixture
def result():
    row = {
        "step_ms": 20.0,
        "evaluate_ms": 4.0,
        "epoch_s": 19.0,
        "step_gflops": 350.0,
        "peak_memory_mb": 700.0,
    }
    slow = {**row, "step_ms": 50.0, "evaluate_ms": 10.0}
    rows = {variants.ENGINE: row, variants.PLAIN: {**row, "step_ms": 600.0}, variants.TORCHES[0]: slow}
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
        "speedup": report._speedups(rows),
        "growth": growth,
    }


def test_the_table_fits_a_narrow_terminal_and_names_the_ratios(result):
    text = report.table(result)
    assert max(map(len, text.splitlines())) <= 79
    assert "the fastest PyTorch: step × 2.50, evaluation × 2.50" in text
    assert "plain Chainer: step × 30.00" in text


def test_the_figure_draws_every_variant_and_every_curve(result):
    bars, curves = report.figure(result).axes
    assert [text.get_text() for text in bars.get_yticklabels()] == [variants.ENGINE, variants.TORCHES[0]]
    assert len(curves.get_lines()) == 2


def test_a_benchmark_of_no_rounds_is_refused_in_one_line(script, tmp_path):
    done = script("benchmark.py", "--rounds", 0, "--json", tmp_path / "figures.json", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "figures.json").exists()
