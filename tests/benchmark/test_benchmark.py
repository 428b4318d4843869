"""The benchmark measures what it says, on a small scale."""

import importlib.machinery
import json
import runpy
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
import chainer
from conftest import ROOT
from srmnist.benchmark import comparison, growth, images, machine, measure, output, variants, workers
from srmnist.benchmark.figure import figure
from srmnist.data.mnist import write_mnist

needs_numba = pytest.mark.skipif(
    importlib.machinery.PathFinder.find_spec("numba") is None,
    reason="Numba is not installed: there is no engine to time",
)


def test_a_step_counts_the_convolutions_multiplications_and_additions():
    # 23,760 multiplications a pixel forward; backward twice that, without the 144 of the input's gradient.
    assert measure.flops(1, train=False) == 2 * 23_760 * 784
    assert measure.flops(64, train=True) == 2 * 64 * 784 * (3 * 23_760 - 144)


def test_measurements_begin_and_end_with_an_idle_device():
    events = []
    times = measure.turn(lambda chosen: events.append("run"), slice(0, 4), 3, lambda: events.append("idle"))
    assert events == ["run", *["idle", "run", "run", "run", "idle"] * measure._TURN]
    assert len(times) == measure._TURN


def test_variants_take_turns_and_the_first_rounds_do_not_count():
    events = []

    def take(task, number):
        events.append((task, number))
        return [float(number)]

    tasks = [(name, kind) for name in ("a", "b") for kind in measure.KINDS]
    times = measure.alternate(take, tasks, rounds=2, warmup=1)
    assert events == [(task, number) for number in (-1, 0, 1) for task in tasks]
    assert times == {task: [0.0, 1.0] for task in tasks}


def test_a_batch_of_all_images_is_not_copied_and_other_batches_repeat_from_round_to_round():
    assert measure.chosen_images(1, 1, 5) == slice(0, 1)
    first, again, next_ = (measure.chosen_images(100, 8, number) for number in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, next_)
    assert measure.chosen_images(4, 64, 0).max() < 4


@needs_numba
def test_each_variant_works_in_a_process_of_its_own_and_one_that_fails_leaves(capsys):
    with workers.team([variants.ENGINE, "no such variant"]) as members:
        members.ask("digits", images=8, batch=2, gpu=-1)
        members.ask("check", batch=2)
        times = members.times(measure.KINDS, batch=2, rounds=1, warmup=0)
        assert set(times) == {(variants.ENGINE, kind) for kind in measure.KINDS}
        assert all(value > 0 for values in times.values() for value in values)
        assert members.ask("memory")[variants.ENGINE] > 50
        worker = members.workers[variants.ENGINE]
        worker._process.kill()
        assert members.ask("memory") == {}
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(" is left out: ")[0] for line in said] == ["no such variant", variants.ENGINE]
    assert "status -9" in said[1]


@needs_numba
def test_without_the_engine_there_is_nothing_to_compare(monkeypatch):
    monkeypatch.setattr(comparison, "ENGINE", "no such variant")
    monkeypatch.setattr(comparison, "available", lambda: ["no such variant"])
    with pytest.raises(srmnist.UserError, match=r"^no such variant: ValueError: there is no variant"):
        comparison.run(4, 1)


@pytest.mark.parametrize("name", variants.CHAINERS)
def test_chainers_variants_compute_what_plain_chainer_does(name):
    pairs = variants.digit_pairs(4)
    variants.check(name, variants.make_variant(name, *pairs), *pairs, batch=4)


@pytest.mark.parametrize("name", [name for name in variants.PEERS if name != variants.GRAPH])
def test_other_libraries_compute_what_plain_chainer_does(name):
    """Three losses in training, and what the network restores afterwards."""
    for package in variants.PEERS[name][1:]:
        pytest.importorskip(package, reason=f"{package} is not installed")
    pairs = variants.digit_pairs(4)
    variant = variants.make_variant(name, *pairs)
    assert (variant.step is None) == (name in variants.FORWARD_ONLY)
    variants.check(name, variant, *pairs, batch=4)


@pytest.mark.parametrize("wrong", ["step", "evaluate"])
def test_a_variant_that_computes_something_else_is_refused(wrong):
    pairs = variants.digit_pairs(4)
    right = variants.make_variant(variants.PLAIN, *pairs)
    off = {"step": lambda chosen: 1.01 * right.step(chosen), "evaluate": lambda chosen: pairs[0]}[wrong]
    with pytest.raises(srmnist.UserError, match="wrong result: "):
        variants.check(variants.PLAIN, right._replace(**{wrong: off}), *pairs, batch=4)


@needs_numba
def test_growth_by_side_tells_time_and_memory_of_one_image(monkeypatch):
    monkeypatch.setattr(growth, "_SIDES", (28, 300))
    monkeypatch.setattr(growth, "_ALONE", 300)
    small, large = growth.by_side([variants.ENGINE], rounds=1)
    assert (small["side"], large["side"]) == (28, 300)
    assert 0 < small["evaluate_ms"] < large["evaluate_ms"]
    if measure.can_forget_peak():
        assert small["more_memory_mb"] < large["more_memory_mb"]


@needs_numba
def test_a_run_on_more_images_is_measured_from_the_command_on():
    row = images.measured(300)
    assert row["images"] == 300
    assert 0.5 < row["first_step_s"] < 300
    assert row["peak_memory_mb"] > 50


def test_the_written_data_set_is_mnists_repeated(tmp_path):
    write_mnist(tmp_path, 60_001, 10_000)
    train, test = srmnist.load_dataset(tmp_path)
    mnist, _ = srmnist.load_dataset()
    assert len(test.images) == 10_000
    assert np.array_equal(train.images[:60_000], mnist.images)
    assert np.array_equal(train.images[60_000], mnist.images[0])


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes_where_there_is_no_proc(monkeypatch, tmp_path, platform, unit):
    """getrusage tells kilobytes on Linux and bytes on macOS."""
    fake = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=5000))
    monkeypatch.setitem(sys.modules, "resource", fake)
    monkeypatch.setattr(measure.sys, "platform", platform)
    assert measure.peak_resident_bytes(tmp_path / "none") == 5000 * unit
    (tmp_path / "status").write_text("VmPeak:\t 9 kB\nVmHWM:\t  7 kB\n")
    assert measure.peak_resident_bytes(tmp_path / "status") == 7 * 1024


CPUINFO = """processor\t: 0
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
flags\t\t: fpu avx avx2 hypervisor

processor\t: 1
model name\t: other
"""


@needs_numba
def test_the_machine_is_described_in_words_and_what_is_not_told_is_missing(tmp_path):
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    (tmp_path / "meminfo").write_text("MemTotal:  25165824 kB\n")
    for number, (level, kind) in enumerate([(1, "Data"), (1, "Instruction"), (2, "Unified")]):
        cache = tmp_path / "cpu0" / "cache" / f"index{number}"
        cache.mkdir(parents=True)
        for name, content in (("level", level), ("type", kind), ("size", "32K")):
            (cache / name).write_text(f"{content}\n")
    card = machine.description(tmp_path, tmp_path)
    assert card["processor"].startswith("AMD EPYC, ")
    assert card["processor"].endswith("threads (family 25, model 17), in a virtual machine")
    assert (card["vectors"], card["caches"], card["memory"]) == (
        "AVX2 (256 bits)",
        "L1 32K, L2 32K",
        "24 GiB",
    )
    assert not {"vectors", "caches", "memory"} & set(
        machine.description(tmp_path / "none", tmp_path / "none")
    )


@pytest.fixture
def result():
    def times(name, step, evaluate):
        found = {(name, "evaluate"): [evaluate, evaluate * 1.1]}
        return found | ({(name, "step"): [step]} if step else {})

    each = {
        **times(variants.ENGINE, 20.0, 4.0),
        **times(variants.PLAIN, 600.0, 160.0),
        **times(variants.EAGER, 50.0, 10.0),
        **times(variants.OPENVINO, None, 12.0),
        **times(variants.OPENVINO_BF16, None, 2.0),
    }
    rows = comparison._rows(each, 64)
    for row in rows.values():
        row["peak_memory_mb"] = 700
    measured = (variants.ENGINE, variants.OPENVINO_BF16)
    sides = [
        {"variant": name, "side": side, "evaluate_ms": side / 7, "more_memory_mb": side / 9}
        for name in measured
        for side in (28, 64, 128, 256, 512, 1024, 2048, 4096)
    ]
    batches = [
        {"variant": name, "batch": batch, "step_ms": 3.0 * batch, "evaluate_ms": 1.0 * batch}
        for name in measured
        for batch in (1, 64, 1024)
    ]
    return {
        "machine": {"processor": "a processor, 2 cores, 2 threads", "memory": "24 GiB"},
        "versions": {name: "2026.4.1" for name in ("python", *comparison._PACKAGES)},
        "batch": 64,
        "matrix_product_gflops": 400.0,
        "variants": rows,
        "speedup": comparison._speedups(rows, variants.CHAINERS),
        "growth": {
            "batch": batches,
            "cores": [{**row, "cores": 1} for row in batches[:1]],
            "side": sides,
            "training": [{**row, "side": 28} for row in batches],
            "images": [{"images": 1_000_000, "first_step_s": 26.04, "peak_memory_mb": 5800}],
        },
    }


def test_the_table_fits_a_narrow_terminal_and_names_what_the_ratios_are_against(result):
    text = comparison.table(result)
    assert max(map(len, text.splitlines())) <= 79
    # bfloat16 is quicker and shown, but it is not what float32 is compared with.
    assert "a step is 30.00 × as fast as with plain Chainer\na step is 2.50 × as fast as with PyTorch" in text
    assert "an evaluation is 2.50 × as fast as with PyTorch eager" in text
    assert "OpenVINO bfloat16" in text
    assert "700 MB" in text


def test_the_table_of_a_gpu_fits_too_and_shows_microseconds(result):
    for row in result["variants"].values():
        del row["peak_memory_mb"]
    result["variants"][variants.ENGINE]["step_ms"] = 0.2345
    text = comparison.table(result | {"machine": "a card", "ten_epochs": {"seconds": 5.0, "mse": 0.0148}})
    assert max(map(len, text.splitlines())) <= 79
    assert "0.234 ±" in text
    assert "ten epochs with evaluation: 5.0 s, validation MSE 0.014800" in text


def test_the_tables_of_growth_fit_a_narrow_terminal(result):
    text = growth.table(result)
    assert max(map(len, text.splitlines())) <= 79
    assert "1,000,000      26.0 s      5,800 MB" in text


def test_the_figure_draws_every_variant_and_every_curve(result):
    drawn = figure(result)
    bars, _, batches, *_ = drawn.axes
    assert [text.get_text() for text in bars.get_yticklabels()] == [variants.ENGINE, variants.EAGER]
    assert len(batches.get_lines()) == 2
    assert len(drawn.axes) == 6
    assert figure({"growth": {}}).axes == []


def test_figures_of_other_flags_stay_in_the_file_and_those_of_another_machine_are_refused(result, tmp_path):
    path = tmp_path / "figures.json"
    assert output.joined(path, result) == result
    output.write_json(path, result)
    new = {"machine": result["machine"], "versions": {}, "growth": {"side": []}}
    joined = output.joined(path, new)
    assert joined == result | {"versions": {}, "growth": result["growth"] | {"side": []}}
    with pytest.raises(srmnist.UserError, match="figures of another machine"):
        output.joined(path, {"machine": {"processor": "another"}})
    path.write_text("[]")
    with pytest.raises(srmnist.UserError, match="not a file of this benchmark"):
        output.joined(path, new)


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
    for measured in (lambda: comparison.run(4, 1), lambda: growth.run(["batch"], 1)):
        with pytest.raises(srmnist.UserError, match=r"no engine to time: .*numba.*; pip install numba"):
            measured()
    monkeypatch.setattr(chainer.backends.cuda, "available", False)
    with pytest.raises(srmnist.UserError, match="--gpu 0: CuPy"):
        comparison.run_gpu(4, 1, gpu=0)


def test_the_script_offers_the_growth_that_there_is_and_writes_both_files(monkeypatch, result, tmp_path):
    script = runpy.run_path(str(ROOT / "scripts" / "benchmark.py"))
    assert set(script["GROWTH"]) == set(growth.PARTS)
    asked = []
    monkeypatch.setattr(growth, "run", lambda parts, rounds: asked.append((parts, rounds)) or result)
    files = tmp_path / "figures.json", tmp_path / "figures.png"
    flags = ["--growth", "side", "--rounds", "2", "--json", str(files[0]), "--plot", str(files[1])]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *flags])
    script["main"]()
    assert asked == [(["side"], 2)]
    assert json.loads(files[0].read_text()) == result
    assert files[1].read_bytes().startswith(b"\x89PNG")


def test_a_benchmark_of_no_rounds_is_refused_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--rounds", "0"])
    with pytest.raises(SystemExit) as refused:
        runpy.run_path(str(ROOT / "scripts" / "benchmark.py"))["main"]()
    assert refused.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
