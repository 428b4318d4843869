"""Whatever processor, and whatever settings of Numba, the engine computes; or plain Chainer does."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from srmnist import CNNAE, engine
from conftest import ROOT

needs_numba = pytest.mark.skipif(engine._cpu() is None, reason="Numba is not installed: there is no engine")


def run_python(program, **environment):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths, **environment}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_without_numba_plain_chainer_computes_and_says_so_once(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith(("numba", "srmnist.engine.cpu"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(engine, "cpu", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    engine._cpu.cache_clear()
    try:
        model, x = CNNAE(), np.zeros((1, 1, 4, 4), np.float32)
        labels = [model.forward(x).creator.label for _ in range(2)]
    finally:
        engine._cpu.cache_clear()
    assert labels == ["Sigmoid", "Sigmoid"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(engine.NO_NUMBA)


PLAIN = """
import sys, numpy, srmnist
srmnist.CNNAE
assert "numba" not in sys.modules, "imported before it is needed"
model = srmnist.CNNAE()
for _ in range(2):
    y = model.forward(numpy.zeros((1, 1, 4, 4), "f"))
print(y.creator.label)
"""


@needs_numba
def test_without_numbas_compiler_plain_chainer_computes_and_says_so_once():
    done = run_python(PLAIN, NUMBA_DISABLE_JIT="1")
    assert done.stdout == "Sigmoid\n", done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(engine.NO_NUMBA)
    assert "NUMBA_DISABLE_JIT" in line


STEP = """
import copy, srmnist, chainer
from helpers.comparisons import assert_same, everything, images, make_model
x, t = images(10, (3, 9, 14))
model = make_model(10)
twin = copy.deepcopy(model)
assert_same(everything(model, x, t, False), everything(twin, x, t, True), 1e-3)
with chainer.using_config("train", False), chainer.no_backprop_mode():
    y = model.forward(x).array
    with chainer.using_config("plain", True):
        assert_same({"y": y}, {"y": model.forward(x).array}, 1e-4)
from srmnist.engine.cpu import simd, threads
print(simd.LANES, threads.thread_count() >= 1)
"""

HASWELL = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2,+f16c"}
GENERIC = {"NUMBA_CPU_NAME": "generic"}
NO_TBB = {"NUMBA_THREADING_LAYER": "tbb", "NUMBA_NUM_THREADS": "0"}
NONSENSE = {"NUMBA_THREADING_LAYER": "none such", "NUMBA_NUM_THREADS": "-3"}


@needs_numba
@pytest.mark.parametrize(
    ("settings", "lanes"),
    [({**HASWELL, **NO_TBB}, 8), ({**GENERIC, **NONSENSE}, 4)],
    ids=["haswell, no TBB, 0 threads", "generic, unknown layer, -3 threads"],
)
def test_other_processors_and_threads_that_numba_refuses_compute_the_same(settings, lanes):
    if lanes == 8 and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("compiles for another x86 processor, which this is not")
    done = run_python(STEP, **settings)
    assert done.stdout == f"{lanes} True\n", done.stderr
    assert done.stderr == ""
