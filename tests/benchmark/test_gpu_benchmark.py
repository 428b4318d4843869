"""The GPU's benchmarks measure what they say, and what they say fits a terminal."""

import io
import json
import re
import runpy
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from chainer.backends import cuda
from conftest import ROOT, run_python
from helpers.gpu_engine import host_device, to_host, why_no_gpu
from srmnist.benchmark import check_gpu, comparison, kernels, measure, variants, workers
from srmnist.engine.gpu import device as devices
from srmnist.engine.gpu import plan
from srmnist.system.device import select_device
from srmnist.training.settings import Settings


def test_every_launch_of_a_step_is_measured_on_buffers_that_hold_numbers(device, monkeypatch):
    """As a step leaves them: none is NaN or infinite, and most differ from zero."""
    seen, buffers, bind = [], {}, device.bind

    def watched(launches, arrays):
        buffers.update(arrays)
        return bind(launches, arrays)

    def note(run):
        run()
        for name, array in buffers.items():
            numbers = to_host(array).astype(float)
            assert np.isfinite(numbers).all(), name
            if name not in ("bias_sums", "loss_sums"):  # these have room for larger batches
                assert np.mean(abs(numbers) > 1e-30) > 0.2, name
        seen.append(run)
        return len(seen)

    monkeypatch.setattr(device, "bind", watched)
    rows, step = kernels.measured(device, 2, note)
    shape, layers = plan.Shape(2, 28, 28), (plan.Normalisation(2e-5, 0.9),) * 3
    assert [row["kernel"] for row in rows] == [launch.kernel for launch in plan.step(shape, layers)]
    assert step == 1
    assert [row["microseconds"] for row in rows] == list(range(2, len(rows) + 2))


def test_the_table_of_kernels_fits_a_narrow_terminal():
    row = {"kernel": "conv3_gradient", "blocks": 14_336, "threads": 128, "microseconds": 1034.56}
    row |= {"registers": 128, "local_bytes": 0, "shared_bytes": 24_192}
    result = {
        "machine": "a card, CUDA 13.0",
        "batch": 64,
        "kernels": [row],
        "sum_us": 234.5,
        "step_us": 199.9,
    }
    text = kernels.table(result)
    assert max(map(len, text.splitlines())) <= 79
    assert "sum 234.5 µs; the step as one graph 199.9 µs" in text


@pytest.mark.parametrize(("same", "seeds"), [(True, (1, 1)), (False, (1, 2))])
def test_two_runs_that_differ_by_a_bit_are_refused(monkeypatch, same, seeds):
    seeds = iter(seeds)

    def train(settings, terminal):
        assert isinstance(terminal, io.StringIO)
        model = srmnist.CNNAE()
        for parameter in model.params():
            parameter.array[...] = 1
        model.bn3.avg_var[0] = next(seeds)
        return SimpleNamespace(seconds=1.0, mse=0.5, model=model)

    monkeypatch.setattr(check_gpu, "train", train)
    if same:
        assert check_gpu.twice(Settings()) == [{"seconds": 1.0, "mse": 0.5}] * 2
    else:
        with pytest.raises(srmnist.UserError, match="two runs of seed 0 give different weights"):
            check_gpu.twice(Settings())


def test_check_runs_the_tests_that_are_marked_gpu(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu")
    (tmp_path / "tests").mkdir()
    text = "import pytest\n@pytest.mark.gpu\ndef test_one():\n    pass\ndef test_other():\n    assert False\n"
    (tmp_path / "tests" / "test_some.py").write_text(text)
    assert "1 passed, 1 deselected" in check_gpu.passed(tmp_path / "tests")


# Imports what checks a GPU, and collects its tests, without the packages that only other work needs.
BARE = """
import sys, pytest
for name in ("cv2", "matplotlib", "skimage", "PIL", "threadpoolctl"):
    sys.modules[name] = None
from srmnist.benchmark import check_gpu
sys.exit(pytest.main(["--collect-only", "-q", "-m", "gpu", "-p", "no:cacheprovider", sys.argv[1]]))
"""


def test_check_of_a_gpu_needs_no_package_for_pictures():
    done = run_python("-c", BARE, ROOT / "tests", cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_gpu_engine.py::test_reference_trajectory_is_followed[gpu]" in done.stdout


@pytest.mark.parametrize(("status", "last"), [(1, "1 failed, 3 passed in 1.00s"), (0, "4 skipped in 1.00s")])
def test_tests_that_fail_or_are_all_skipped_stop_the_check(monkeypatch, tmp_path, capsys, status, last):
    done = subprocess.CompletedProcess([], status, f"much\n{last}\n", "")
    monkeypatch.setattr(check_gpu.subprocess, "run", lambda *args, **kwds: done)
    with pytest.raises(srmnist.UserError, match=re.escape(f"the tests on the GPU fail ({last})")):
        check_gpu.passed(tmp_path)
    assert "much" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["benchmark.py", "--gpu", "0"], ["check_gpu.py"]])
def test_without_a_gpu_it_is_refused_and_nothing_is_written(monkeypatch, tmp_path, command):
    if not why_no_gpu():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(sys, "argv", [*command, "--json", str(tmp_path / "gpu.json")])
    script = runpy.run_path(str(ROOT / "scripts" / command[0]))
    with pytest.raises(srmnist.UserError, match=r"^--gpu 0: "):
        script["main"]()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("benchmark.py --gpu 0 --plot figure.png", "--plot"),
        ("benchmark.py --gpu 0 --mpi", "--mpi"),
        ("benchmark.py --kernels", "--gpu"),
        ("benchmark.py --gpu 0 --growth", "--growth"),
        ("benchmark.py --mpi --avx2", "--avx2"),
        ("benchmark.py --growth side --avx2", "--avx2"),
        ("benchmark.py --gpu 0 --kernels -b 400000000", "--batchsize"),
        ("check_gpu.py --gpu -1", "--gpu"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(monkeypatch, capsys, command, named):
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "scripts" / sys.argv[0]))["main"]()
    assert named in capsys.readouterr().err


class Here:
    """A worker that has no process of its own."""

    def __init__(self, name, environment):
        self._served = workers._Served(name)

    def ask(self, request, **arguments):
        result, problem = json.loads(workers._answer(self._served, json.dumps([request, arguments])))
        if problem:
            raise srmnist.UserError(problem)
        return result

    def close(self):
        pass


class Lost(RuntimeError):
    """An error of CUDA."""


@pytest.fixture
def stand_in(monkeypatch):
    """Let its stand-in on the CPU be GPU 0, and workers compute in this process.

    Returns a list of what has happened.
    """
    device, events = host_device(), []
    errors = {
        "runtime": SimpleNamespace(CUDARuntimeError=Lost),
        "driver": SimpleNamespace(CUDADriverError=Lost),
        "memory": SimpleNamespace(OutOfMemoryError=MemoryError),
    }
    cupy = SimpleNamespace(cuda=SimpleNamespace(**errors), __version__="14.2.0")
    monkeypatch.setattr(cuda, "cupy", cupy)
    monkeypatch.setattr(cuda, "available", False)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(devices, "current", lambda: device)
    for module in (comparison, variants, workers):
        monkeypatch.setattr(module, "select_device", lambda gpu=-1: select_device())
    monkeypatch.setattr(workers, "Worker", Here)
    for name, quick in (("GPU_RUNS", 2), ("_PAUSE", 0), ("_TURN", 1)):
        monkeypatch.setattr(measure, name, quick)
    monkeypatch.setattr(measure, "synchroniser", lambda gpu: lambda: events.append(f"waited for {gpu}"))
    return events


def fail(monkeypatch, name, error):
    """Let that variant's runs fail."""
    make = workers.make_variant

    def run(chosen):
        raise error

    failing = variants.Variant(run, run)
    monkeypatch.setattr(workers, "make_variant", lambda of, *args: failing if of == name else make(of, *args))


def test_a_gpu_s_variants_are_measured_by_workers_and_one_that_fails_leaves(monkeypatch, stand_in, capsys):
    @contextmanager
    def team(*args, **kwds):
        with workers.team(*args, **kwds) as members:
            yield members
        stand_in.append("team ended")

    def peak(gpu):
        stand_in.append(f"peak of {gpu}")
        return 50_000.0

    names = [*variants.GPU_CHAINERS, variants.COMPILED]
    monkeypatch.setattr(comparison, "available", lambda gpu: names)
    monkeypatch.setattr(comparison, "team", team)
    monkeypatch.setattr(comparison.machine, "card", lambda gpu: "a card")
    monkeypatch.setattr(measure, "matrix_product_peak", peak)
    monkeypatch.setattr(comparison, "ten_epochs", lambda *args: {"seconds": 5.0, "mse": 0.01})
    fail(monkeypatch, variants.COMPILED, RuntimeError("no working triton installation\nMuch advice."))
    result = comparison.run_gpu(4, 1, gpu=0)
    assert list(result["variants"]) == list(variants.GPU_CHAINERS)
    assert set(result["speedup"]) == {variants.PLAIN}
    assert "ten epochs with evaluation: 5.0 s" in comparison.table(result)
    assert stand_in[0] == "waited for 0"
    assert stand_in[-2:] == ["team ended", "peak of 0"]
    said = f"{variants.COMPILED} is left out: RuntimeError: no working triton installation\n"
    assert capsys.readouterr().err == said


def test_an_error_of_the_device_is_one_line_and_the_engine_s_ends_the_comparison(monkeypatch, stand_in):
    monkeypatch.setattr(comparison, "available", lambda gpu: list(variants.GPU_CHAINERS))
    fail(monkeypatch, variants.ENGINE, Lost("cudaErrorIllegalAddress: much\nadvice"))
    told = f"{variants.ENGINE}: --gpu 0: CUDA failed (cudaErrorIllegalAddress: much); nvidia-smi"
    with pytest.raises(srmnist.UserError, match=re.escape(told)):
        comparison.run_gpu(4, 1, gpu=0)


def test_on_a_gpu_a_batch_of_all_images_is_given_by_their_indices(stand_in):
    with workers.team([variants.ENGINE]) as members:
        members.ask("digits", images=4, batch=4, gpu=0)
        assert set(members.times(measure.KINDS, batch=4, rounds=1)) == {
            (variants.ENGINE, kind) for kind in measure.KINDS
        }


def test_a_worker_without_a_gpu_says_so_in_one_line(capsys):
    if not why_no_gpu():
        pytest.skip("there is a GPU")
    with workers.team([variants.PLAIN]) as members:
        members.ask("digits", images=4, batch=4, gpu=0)
    assert capsys.readouterr().err == f"{variants.PLAIN} is left out: {why_no_gpu()}\n"


@pytest.mark.gpu
def test_on_a_gpu_every_variant_is_measured():
    if why_no_gpu():
        pytest.skip(why_no_gpu())
    with workers.team(variants.available(0)) as members:
        members.ask("digits", images=10_000, batch=16, gpu=0)
        times = members.times(measure.KINDS, batch=16, rounds=1)
    # torch.compile may leave: it wants Triton.
    assert {(name, kind) for name in variants.GPU_CHAINERS for kind in measure.KINDS} <= set(times)
    assert all(np.isfinite(value) and value > 0 for values in times.values() for value in values)


@pytest.mark.gpu
def test_on_a_gpu_every_kernel_is_measured():
    if why_no_gpu():
        pytest.skip(why_no_gpu())
    result = kernels.run(0, 8)
    assert all(row["microseconds"] > 0 and row["local_bytes"] == 0 for row in result["kernels"])
    json.dumps(result)
