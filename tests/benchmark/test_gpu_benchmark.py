"""The GPU's benchmark measures what it says, and its report fits a terminal."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import srmnist
from helpers.gpu_engine import why_no_gpu
from helpers.users import refusal, run, SCRIPTS

pytest.importorskip("numba", reason="the benchmark times the CPU engine too")
from srmnist.benchmark import gpu
from srmnist.benchmark.variants import TORCHES


def test_variants_take_turns_and_each_turn_begins_and_ends_with_an_idle_device():
    events = []

    def noting(name):
        return gpu.Variant(*(lambda batch, kind=kind: events.append((name, kind)) for kind in gpu.KINDS))

    made = {name: noting(name) for name in ("a", "b")}
    times = gpu.measure(made, 4, 2, 10, synchronise=lambda: events.append("idle"))
    assert set(times) == {"a", "b"}
    assert all(value > 0 for row in times.values() for value in row.values())
    for name in made:
        for kind in gpu.KINDS:
            assert events.count((name, kind)) == gpu._WARMUP + 2 * gpu._TURN[kind]
    changes = [events[i] for i in range(len(events)) if i == 0 or events[i] != events[i - 1]]
    assert changes[::2] == ["idle"] * len(changes[::2])


def test_a_pytorch_that_cannot_compute_is_left_out_and_said(monkeypatch, capsys):
    def made(*args, **kwds):
        return gpu.Variant(lambda batch: None, lambda batch: None)

    def made_by_torch(degraded, originals, name, device):
        def fail(batch):
            raise RuntimeError("Cannot find a working triton installation\nMuch advice.")

        return gpu.Variant(fail, fail) if name == "torch.compile" else made()

    available = SimpleNamespace(is_available=lambda: True)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=available, device=lambda *names: names))
    for name, function in (("_engine", made), ("_plain_chainer", made), ("_torch", made_by_torch)):
        monkeypatch.setattr(gpu, name, function)
    found = gpu.variants(np.empty(0), np.empty(0), 0, 4)
    assert set(TORCHES) - set(found) == {"torch.compile"}
    assert capsys.readouterr().err == "torch.compile is left out: Cannot find a working triton installation\n"


def test_the_table_fits_a_narrow_terminal_and_names_the_ratios():
    row = {"step_ms": 0.4, "evaluate_ms": 0.12, "step_gflops": 17_000.0, "evaluate_gflops": 20_000.0}
    text = gpu.table({
        "machine": "a card, CUDA 13.0", "versions": {"chainer": "7.8.1"}, "batch": 64,
        "matrix_product_gflops": 50_000.0,
        "variants": {gpu.ENGINE: row, "PyTorch channels_last": {**row, "step_ms": 1.2}},
        "speedup": {"PyTorch channels_last": {"step": 3.0, "evaluate": 1.0}},
        "ten_epochs": {"seconds": 5.0, "mse": 0.0148},
    })  # fmt: skip
    assert max(map(len, text.splitlines())) <= 79
    assert "× 3.00" in text
    assert "5.0 s" in text


def test_without_a_gpu_it_is_refused_in_one_line(tmp_path):
    if not why_no_gpu():
        pytest.skip("there is a GPU")
    command = [sys.executable, str(SCRIPTS / "benchmark.py"), "--gpu", "0", "--json", "gpu.json"]
    assert "--gpu 0" in refusal(run(command, cwd=tmp_path))
    assert not (tmp_path / "gpu.json").exists()


def test_plot_is_the_cpu_s(tmp_path):
    command = [sys.executable, str(SCRIPTS / "benchmark.py"), "--gpu", "0", "--plot", "figure.png"]
    assert "--plot" in refusal(run(command, cwd=tmp_path))


@pytest.mark.gpu
def test_on_a_gpu_every_variant_is_measured(tmp_path):
    if why_no_gpu():
        pytest.skip(why_no_gpu())
    _, originals = srmnist.load_mnist()
    from srmnist.system.device import select_device

    select_device(0)
    made = gpu.variants(srmnist.degrade(originals[:64]), originals[:64], 0, 16)
    times = gpu.measure(made, 16, 1, 64)
    assert {gpu.ENGINE, gpu.UNCAPTURED, gpu.PLAIN} <= set(times)
    assert all(np.isfinite(value) and value > 0 for row in times.values() for value in row.values())
    json.dumps(times)
