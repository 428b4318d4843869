"""The CUDA kernels compute what the article's functions do, on a GPU and, launched likewise, on the CPU."""

import copy
import ctypes
import importlib.util
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

import srmnist
import chainer
from conftest import ROOT
from helpers.comparisons import assert_same, closest_to_kink, everything, images, make_model
from helpers.cuda_on_cpu.device import kernel_names, HostDevice, library
from helpers.gpu_engine import host_device, to_host
from srmnist.data import to_float
from srmnist.engine.gpu import plan
from srmnist.engine.gpu.device import FLAGS, source
from srmnist.engine.gpu.step import _next_coefficients
from srmnist.engine.gpu.vectors import has_muon
from srmnist.engine.network import normalisations, parameters
from srmnist.training.recipes import make_optimizer

NAMES = [
    "conv1/W",
    "bn1/gamma",
    "bn1/beta",
    "conv2/W",
    "bn2/gamma",
    "bn2/beta",
    "conv3/W",
    "bn3/gamma",
    "bn3/beta",
    "conv4/W",
    "conv4/b",
]


def buffers(device, shape, **given):
    """Every buffer of a batch; those given hold these values."""
    arrays = {name: device.empty(*buffer) for name, buffer in plan.buffers(shape).items()}
    for name, values in given.items():
        arrays[name][...] = device.xp.asarray(np.ravel(values))
    return arrays


def computed(device, model, x, t, train=True):
    """Output, loss, every gradient and running statistic of a model, by the launches of a training step."""
    shape = plan.Shape(len(x), *x.shape[2:])
    links = normalisations(model)
    averages = {
        f"average{layer}": np.stack([link.avg_mean, link.avg_var]) for layer, link in enumerate(links, 1)
    }
    flat = np.concatenate([parameter.array.ravel() for parameter in parameters(model)])
    arrays = buffers(device, shape, parameters=flat, x=x, t=t, **averages)
    layers = tuple(plan.Normalisation(link.eps, link.decay) for link in links)
    launches = [*plan.forward(shape, layers, train), *plan.squared_error(shape), *plan.backward(shape, train)]
    device.bind(launches, arrays)()
    if device.xp is np:
        device.check_guards()
    arrays = {name: to_host(array) for name, array in arrays.items()}
    found = {f"/{name}": array for name, array in zip(NAMES, plan.split(arrays["gradient"]), strict=True)}
    for layer in (1, 2, 3):
        mean, variance = arrays[f"average{layer}"].reshape(2, -1)
        found.update({f"bn{layer}/avg_mean": mean, f"bn{layer}/avg_var": variance})
    return {"y": arrays["y"].reshape(x.shape), "loss": arrays["loss"][0], **found}


def by_chainer(model, x, t, train=True):
    found = everything(copy.deepcopy(model), x, t, plain=True, train=train)
    del found["gx"]
    return found


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 4, 28), (1, 5, 29), (3, 8, 57)])
def test_a_step_equals_chainers_at_the_edges_of_tiles(device, shape, train):
    # The first model of whose activations none lies where rounding would decide what its ReLU does.
    cases = ((make_model(seed), *images(seed, shape)) for seed in itertools.count())
    model, x, t = next(case for case in cases if closest_to_kink(*case[:2], train) > 1e-5)
    assert_same(computed(device, model, x, t, train), by_chainer(model, x, t, train), 3e-4)


@pytest.mark.parametrize("shape", [(2, 28, 28), (3, 5, 57)])
def test_the_order_in_which_a_block_s_threads_run_does_not_matter(shape):
    """If it did, a barrier would be missing."""
    x, t = images(2, shape)
    host = host_device()
    forwards = computed(host, make_model(2), x, t)
    host.backwards = True
    backwards = computed(host, make_model(2), x, t)
    for name, value in forwards.items():
        np.testing.assert_array_equal(backwards[name], value, err_msg=name)


def test_two_runs_give_the_same_bits(device):
    x, t = images(2, (5, 28, 28))
    first, second = (computed(device, make_model(2), x, t) for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


def updated(device, optimizer, gradients):
    """Parameters, and the vector "m", after steps with these gradients, by the kernels."""
    flat = np.concatenate([to_host(parameter.array).ravel() for parameter in parameters(optimizer.target)])
    zeros = {name: np.zeros(plan.COUNT) for name in ("m", "v")}
    arrays = buffers(device, plan.Shape(1, 1, 1), parameters=flat, **zeros)
    muon = has_muon(optimizer)
    run = device.bind(plan.update(muon), arrays)
    for gradient in gradients:
        device.upload(_next_coefficients(optimizer, muon), arrays["coefficients"])
        arrays["gradient"][...] = device.xp.asarray(gradient)
        run()
    if device.xp is np:
        device.check_guards()
    return to_host(arrays["parameters"]), to_host(arrays["m"])


def updated_by_chainer(optimizer, gradients):
    for gradient in gradients:
        for parameter, piece in zip(parameters(optimizer.target), plan.split(gradient), strict=True):
            parameter.grad = piece
        optimizer.update()
    return np.concatenate([parameter.array.ravel() for parameter in parameters(optimizer.target)])


def random_gradients(count=3):
    return list(np.random.default_rng(4).normal(size=(count, plan.COUNT)).astype(np.float32))


def adam():
    optimizer = chainer.optimizers.Adam(alpha=0.01, beta1=0.8, eps=1e-6, eta=0.9, weight_decay_rate=0.02)
    return optimizer.setup(make_model(4))


def tuned():
    optimizer = make_optimizer("tuned", make_model(4))
    optimizer.alpha = 0.01
    return optimizer


@pytest.mark.parametrize("make", [adam, tuned])
def test_an_update_is_chainers(device, make):
    gradients, here = random_gradients(), make()
    expected = updated_by_chainer(here, gradients)
    there = make()
    found, momentum = updated(device, there, gradients)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)
    assert there.t == here.t == here.target.conv2.W.update_rule.t == 3
    if make is tuned:
        state = here.target.conv2.W.update_rule.state["momentum"]
        np.testing.assert_allclose(plan.split(momentum)[3], state, rtol=1e-5, atol=1e-6)


def test_two_updates_by_muon_give_the_same_bits(device):
    first, second = (updated(device, tuned(), random_gradients()) for _ in range(2))
    np.testing.assert_array_equal(second, first)


def test_the_threads_of_muon_may_run_in_any_order():
    host = host_device()
    forwards, _ = updated(host, tuned(), random_gradients(1))
    host.backwards = True
    backwards, _ = updated(host, tuned(), random_gradients(1))
    np.testing.assert_array_equal(backwards, forwards)


@pytest.mark.parametrize("gradient", [0, np.nan])
def test_muon_leaves_weights_without_a_gradient_and_shows_one_that_is_no_number(device, gradient):
    optimizer = tuned()
    before = optimizer.target.conv3.W.array.copy()
    found, _ = updated(device, optimizer, [np.full(plan.COUNT, gradient, np.float32)])
    np.testing.assert_array_equal(plan.split(found)[6], before if gradient == 0 else np.nan)


@pytest.mark.parametrize(("height", "width", "size"), [(28, 28, 10), (5, 31, 4), (9, 9, 1), (8, 8, 8)])
def test_pairs_are_made_of_bytes_by_index_to_the_bits_of_degrade(device, height, width, size):
    images = np.random.default_rng(5).integers(0, 256, (7, height, width), np.uint8)
    shape, chosen = plan.Shape(4, height, width), [6, 0, 3, 3]
    tables = dict(zip(("rows", "row_fractions"), plan.samples(height, size), strict=True))
    tables |= zip(("columns", "column_fractions"), plan.samples(width, size), strict=True)
    arrays = buffers(device, shape, indices=chosen, **tables) | {"images": device.xp.asarray(images)}
    device.bind(plan.batch(shape), arrays)()
    originals = to_float(images[chosen])
    np.testing.assert_array_equal(to_host(arrays["t"]), originals.ravel())
    np.testing.assert_array_equal(to_host(arrays["x"]), srmnist.degrade(originals, size).ravel())
    if device.xp is np:
        device.check_guards()


def test_every_kernel_is_launched_by_some_list():
    shape, layers = plan.Shape(2, 3, 4), (plan.Normalisation(1e-5, 0.9),) * 3
    training = [*plan.step(shape, layers, muon=True), *plan.sigmoid_gradient(shape)]
    launches = [*training, *plan.evaluation(shape, layers)]
    assert {launch.kernel for launch in launches} == set(kernel_names(source()))


def nvrtc() -> ctypes.CDLL:
    """NVRTC's library, from wherever NVIDIA's wheels have put it."""
    spec = importlib.util.find_spec("nvidia")
    roots = list(spec.submodule_search_locations) if spec else []
    found = [path for root in roots for path in Path(root).rglob("libnvrtc.so.*")]
    if not found:
        pytest.skip("NVRTC is not installed (pip install nvidia-cuda-nvrtc)")
    return ctypes.CDLL(str(found[0]))


def test_readme_of_the_engine_shows_the_launches_that_a_step_makes():
    text = (ROOT / "srmnist" / "engine" / "gpu" / "README.md").read_text(encoding="utf-8")
    launches = plan.step(plan.Shape(64, 28, 28), (plan.Normalisation(1e-5, 0.9),) * 3)
    table = text.partition("| chain |")[2].partition("\n\n")[0]
    assert f"The {len(launches)} launches" in text
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(launch.kernel for launch in launches)
    assert f"{plan.COUNT + 1 + 2 * sum(plan.CHANNELS):,} numbers" in text


# What CuPy 13 and CuPy 14 add.
CUPY = {13: ["-ftz=true"], 14: ["-ftz=true", "--device-as-default-execution-space"]}


@pytest.mark.parametrize(
    ("architecture", "cupy"),
    [("sm_75", 13), ("sm_80", 14), ("sm_90", 14), ("sm_100", 14), ("sm_120", 14)],
)
def test_kernels_compile_without_a_warning_and_fit_their_registers(architecture, cupy):
    nvidia, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    nvidia.nvrtcCreateProgram(ctypes.byref(program), source().encode(), b"srmnist.cu", 0, None, None)
    flags = [*FLAGS, *CUPY[cupy], f"--gpu-architecture={architecture}", "--ptxas-options=-v"]
    encoded = (ctypes.c_char_p * len(flags))(*map(str.encode, flags))
    status = nvidia.nvrtcCompileProgram(program, len(flags), encoded)
    nvidia.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    written = ctypes.create_string_buffer(size.value)
    nvidia.nvrtcGetProgramLog(program, written)
    nvidia.nvrtcDestroyProgram(ctypes.byref(program))
    log = written.value.decode()
    assert status == 0, log
    assert "warning" not in log
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    registers = dict(re.findall(r"Function properties for (\w+)\n.*\n.* Used (\d+) registers", log))
    assert set(registers) == set(kernel_names(source()))
    assert set(spills) == {("0", "0", "0")}
    # A multiprocessor has 65,536 registers: enough for 512 threads, four blocks of a convolution.
    assert max(map(int, registers.values())) <= 128


@pytest.mark.parametrize("weight", [3e38, np.nan])
def test_weights_that_have_diverged_give_a_loss_that_is_not_finite(device, weight):
    x, t = images(15, (4, 8, 8))
    model = make_model(15)
    model.conv1.W.array[...] = weight
    for train in (True, False):
        with np.errstate(all="ignore"):
            assert not np.isfinite(by_chainer(model, x, t, train)["loss"])
        assert not np.isfinite(computed(device, model, x, t, train)["loss"])


FAULTY = """
extern "C" __global__ void __launch_bounds__(4)
    unwritten(float* out) {
    __shared__ float shared[4];
    if (threadIdx.x > 0) shared[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = shared[threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(4)
    shifted(float* out) {
    float4 vector = *(const float4*)(out + 1 + 4 * threadIdx.x);
    *(float4*)(out + 4 * threadIdx.x) = vector;
}
"""


def test_stand_in_shows_shared_memory_that_nobody_wrote_and_vectors_out_of_line(tmp_path):
    host_device()  # or there is no compiler
    stand_in = HostDevice(library(tmp_path, FAULTY))
    out = stand_in.empty(20, np.float32)
    run = stand_in.bind([plan.Launch("unwritten", 2, 4, ("out",))], {"out": out})
    for _ in range(2):
        run()
        np.testing.assert_array_equal(out[:4], [np.nan, 1, 1, 1])
    with pytest.raises(AssertionError, match="4 vectors"):
        stand_in.bind([plan.Launch("shifted", 1, 4, ("out",))], {"out": out})()
