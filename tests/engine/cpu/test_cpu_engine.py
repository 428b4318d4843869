"""The CPU engine equals the article's functions, whatever it is given."""

import copy
import os
import platform
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed")
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from srmnist import CNNAE, degrade, engine
import chainer
from chainer import gradient_check
from helpers.comparisons import assert_same, closest_to_kink, everything, images, make_model
from conftest import ROOT

pytestmark = pytest.mark.skipif(engine._cpu() is None, reason="Numba is not installed: there is no engine")

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 13), st.integers(1, 13))


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, train=st.booleans(), seed=st.integers(0, 2**16))
def test_equals_plain_chainer_for_every_shape_and_mode(shape, train, seed):
    x, t = images(seed, shape)
    model = make_model(seed)
    # One pixel has no variance: it is divided by the root of eps, and its rounding with it.
    assume(np.prod(shape) > 1 or not train)
    assume(closest_to_kink(model, x, train) > 1e-5)
    twin = copy.deepcopy(model)
    assert_same(everything(model, x, t, False, train), everything(twin, x, t, True, train), 3e-4)


@pytest.mark.parametrize("train", [True, False])
def test_equals_plain_chainer_on_a_whole_batch(train):
    x, t = images(1, (64, 28, 28))
    model = make_model(1)
    twin = copy.deepcopy(model)
    found, expected = everything(model, x, t, False, train), everything(twin, x, t, True, train)
    # Some of five million activations lie at the kink of their ReLU, where rounding decides on which side:
    # single gradients jump there, so these are compared as a whole.
    for name, value in expected.items():
        assert np.linalg.norm(found[name] - value) < 5e-3 * np.linalg.norm(value), name
    assert_same(found, {name: expected[name] for name in ("y", "loss", "bn3/avg_mean", "bn3/avg_var")}, 1e-4)


def in_float64(model):
    """A copy of a model that computes in float64, which the engine leaves to Chainer."""
    exact = copy.deepcopy(model)
    for link in exact.links():
        for parameter in link.params(include_uninit=False):
            parameter.array = parameter.array.astype(np.float64)
        if isinstance(link, chainer.links.BatchNormalization):
            link.avg_mean, link.avg_var = link.avg_mean.astype(np.float64), link.avg_var.astype(np.float64)
    return exact


def test_a_training_step_on_digits_is_within_rounding_of_float64(mnist):
    """What Winograd's algorithm costs in accuracy, where it counts: nothing beside NumPy's float32 means."""
    t = mnist[0][:64]
    x = degrade(t)
    model = make_model(2)
    truth = everything(in_float64(model), x.astype(np.float64), t.astype(np.float64), plain=False)
    found = everything(copy.deepcopy(model), x, t, plain=False)
    plain = everything(copy.deepcopy(model), x, t, plain=True)

    def error(result, name):
        return np.linalg.norm(result[name] - truth[name]) / np.linalg.norm(truth[name])

    for name in truth:
        assert error(found, name) < 1e-4, name
    assert error(found, "y") < 1e-6
    assert error(found, "y") < error(plain, "y")


def test_gradients_agree_with_finite_differences():
    x, t = images(3, (2, 6, 5))
    model = make_model(3)
    np.random.seed(3)  # of the direction that gradient_check goes in: one in a hundred meets a ReLU's kink
    with chainer.using_config("train", False):
        gradient_check.check_backward(
            lambda x: chainer.functions.sum(model.forward(x) * t),
            x, None, list(model.params()), eps=2e-2, rtol=2e-2, atol=5e-3,
        )  # fmt: skip


@pytest.mark.parametrize("train", [True, False])
def test_without_backprop_the_result_is_the_same(train):
    x, _ = images(4, (5, 9, 8))
    model = make_model(4)
    twin = copy.deepcopy(model)
    with chainer.using_config("train", train):
        expected = twin.forward(x).array
        with chainer.no_backprop_mode():
            found = model.forward(x).array
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_array_equal(model.bn2.avg_var, twin.bn2.avg_var)


def test_the_model_used_twice_in_one_graph_keeps_both_sets_of_activations():
    x, t = images(5, (3, 8, 8))
    totals = []
    for plain in (False, True):
        model = make_model(5)
        with chainer.using_config("plain", plain):
            model.cleargrads()
            loss = model(x, t) + 2 * model(t, x)
            loss.backward()
        totals.append({name: parameter.grad for name, parameter in model.namedparams()})
    assert_same(*totals, 3e-4)


def test_gradients_of_gradients_go_through_chainers_functions():
    x, t = images(6, (2, 5, 5))
    seconds = []
    for plain in (False, True):
        model = make_model(6)
        with chainer.using_config("plain", plain), chainer.using_config("train", False):
            model.cleargrads()
            v = chainer.Variable(x)
            y = model.forward(v) * t
            (gx,) = chainer.grad([y], [v], enable_double_backprop=True)
            chainer.functions.sum(gx * gx).backward()
        seconds.append({"conv2": model.conv2.W.grad, "conv4": model.conv4.W.grad})
    assert_same(*seconds, 1e-3)


def test_recomputing_leaves_the_running_statistics_alone():
    x, t = images(7, (2, 6, 6))
    model, twin = make_model(7), make_model(7)
    chainer.functions.forget(model.forward, x).grad = t
    model(x, t)
    twin(x, t)
    twin(x, t)
    y = chainer.functions.forget(model.forward, x)
    before = model.bn1.avg_mean.copy()
    chainer.functions.sum(y).backward()
    np.testing.assert_array_equal(model.bn1.avg_mean, before)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_dtypes_take_the_plain_path(dtype):
    with chainer.using_config("dtype", dtype):
        model = CNNAE()
        y = model.forward(np.zeros((1, 1, 4, 4), dtype))
    assert y.dtype == dtype
    assert y.creator.label == "Sigmoid"


def test_the_engine_is_the_default_and_plain_switches_it_off():
    model, x = CNNAE(), np.zeros((1, 1, 4, 4), np.float32)
    assert model.forward(x).creator.label == "Restore"
    with chainer.using_config("plain", True):
        assert model.forward(x).creator.label == "Sigmoid"


def test_images_that_are_not_contiguous_are_read_right():
    x, _ = images(8, (4, 8, 10))
    model = make_model(8)
    view = np.ascontiguousarray(x.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    with chainer.using_config("train", False):
        np.testing.assert_array_equal(model.forward(view).array, model.forward(x).array)


def test_wrong_shapes_are_chainers_to_complain_about():
    with pytest.raises(chainer.utils.type_check.InvalidType):
        CNNAE().forward(np.zeros((1, 3, 4, 4), np.float32))


def test_any_number_of_threads_gives_the_same_bits():
    numba = pytest.importorskip("numba")
    x, t = images(9, (13, 11, 9))
    results, before = [], numba.get_num_threads()
    try:
        for threads in range(1, before + 1):
            numba.set_num_threads(threads)
            results.append(everything(make_model(9), x, t, plain=False))
    finally:
        numba.set_num_threads(before)
    for result in results[1:]:
        for name, value in results[0].items():
            np.testing.assert_array_equal(result[name], value, err_msg=name)


def test_models_in_several_threads_do_not_disturb_each_other():
    x, t = images(11, (9, 10, 10))
    expected = everything(make_model(11), x, t, plain=False)
    found, start = [], threading.Barrier(3)

    def work():
        model = make_model(11)
        start.wait()
        found.append(everything(model, x, t, plain=False))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 3
    for result in found:
        for name, value in expected.items():
            np.testing.assert_array_equal(result[name], value, err_msg=name)


def test_buffers_are_used_again_from_step_to_step():
    from srmnist.engine.cpu import memory

    x, t = images(12, (9, 10, 10))
    model = make_model(12)
    addresses = set()
    for _ in range(4):
        loss = model(x, t)
        node = loss.creator.inputs[0].creator_node
        addresses.add(node._buffers.activations[0].ctypes.data)
        loss.backward()
        del loss, node
    assert len(addresses) == 1
    assert len(memory.pool._free) <= 2


def run_python(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_without_numba_the_plain_path_runs_and_says_so_once():
    done = run_python(
        "import sys; sys.modules['numba'] = None\n"
        "import numpy, srmnist\n"
        "model = srmnist.CNNAE()\n"
        "for _ in range(2): y = model.forward(numpy.zeros((1, 1, 4, 4), 'f'))\n"
        "print(y.creator.label)"
    )
    assert done.stdout == "Sigmoid\n"
    assert len(done.stderr.splitlines()) == 1
    assert "Numba" in done.stderr


PROGRAM_FOR_OTHER_PROCESSORS = """
import copy
from srmnist.engine.cpu import simd
import test_cpu_engine as this
x, t = this.images(10, (3, 9, 14))
model = this.make_model(10)
twin = copy.deepcopy(model)
this.assert_same(this.everything(model, x, t, False), this.everything(twin, x, t, True), 1e-3)
print(simd.LANES)
"""


@pytest.mark.parametrize(
    ("processor", "features", "lanes"),
    [("haswell", "+avx,+avx2,+fma,+bmi,+bmi2,+f16c", 8), ("x86-64", "+sse2", 4)],
)
def test_narrower_processors_compute_the_same(processor, features, lanes):
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("compiles for other x86 processors, which this is not")
    done = run_python(
        PROGRAM_FOR_OTHER_PROCESSORS,
        NUMBA_CPU_NAME=processor,
        NUMBA_CPU_FEATURES=features,
        PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    )
    assert done.stdout == f"{lanes}\n", done.stderr


def test_a_cache_that_cannot_be_written_is_harmless(monkeypatch):
    pytest.importorskip("numba")
    from srmnist.engine.cpu.compiled import compiled

    def full(*args):
        raise OSError(28, "No space left on device")

    def double(x):
        return 2 * x

    kept = compiled(double)
    monkeypatch.setattr(kept._cache._cache, "save_overload", full)
    assert kept(21) == 42
    monkeypatch.setattr("srmnist.engine.cpu.compiled.njit", no_locator)
    assert compiled(double)(21) == 42


def no_locator(cache=False, **options):
    import numba

    if cache:
        raise RuntimeError("cannot cache function: no locator available")
    return numba.njit(**options)
