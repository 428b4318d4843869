"""The network and its training step in each implementation that can be compared, on the CPU and on a GPU."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import chainer
import numpy as np

from srmnist.data import load_mnist
from srmnist.degradation import degrade
from srmnist.system.device import select_device
from srmnist.system.errors import UserError
from srmnist.training.pairs import Pairs
from srmnist.training.recipes import ARTICLE, TUNED, make_optimizer
from srmnist.training.trainer import initial_model
from srmnist.training.updater import update

ENGINE, TUNED_ENGINE, PLAIN = "srmnist engine", "engine, recipe tuned", "plain Chainer"
UNCAPTURED = "engine uncaptured"
EAGER, CHANNELS_LAST, COMPILED = "PyTorch eager", "PyTorch channels_last", "torch.compile"
GRAPH = "PyTorch CUDA graph"
TENSORFLOW, XLA, JAX = "TensorFlow", "TensorFlow XLA", "JAX"
ONNXRUNTIME, OPENVINO, OPENVINO_BF16 = "onnxruntime", "OpenVINO", "OpenVINO bfloat16"

CHAINERS = (ENGINE, TUNED_ENGINE, PLAIN)  # on the CPU
GPU_CHAINERS = (ENGINE, UNCAPTURED, TUNED_ENGINE, PLAIN)
TORCHES = (EAGER, CHANNELS_LAST, COMPILED)
GPU_TORCHES = (*TORCHES, GRAPH)
# The packages that other implementations need. Each variant is made by the module of `peers` named first.
PEERS = {
    **dict.fromkeys(GPU_TORCHES, ("pytorch", "torch")),
    **dict.fromkeys((TENSORFLOW, XLA), ("tensorflow_", "tensorflow")),
    JAX: ("jax_", "jax"),
    ONNXRUNTIME: ("onnx_runtimes", "onnx", "onnxruntime"),
    **dict.fromkeys((OPENVINO, OPENVINO_BF16), ("onnx_runtimes", "onnx", "openvino")),
}
_ALPHA = 0.001  # Adam's default
FORWARD_ONLY = (ONNXRUNTIME, OPENVINO, OPENVINO_BF16)
NOT_FLOAT32 = (OPENVINO_BF16,)

# Indices of a batch, or a slice of the data set, which is not copied.
Chosen = np.ndarray | slice


class Variant(NamedTuple):
    """One implementation.

    Attributes
    ----------
    step : function or None
        Trains on the images that are chosen, and returns the loss. None if the implementation cannot train.
    evaluate : function
        Restores the images that are chosen with the running statistics, and returns them. On a GPU it also
        computes the loss, as evaluation in training does.
    """

    step: Callable[[Chosen], Any] | None
    evaluate: Callable[[Chosen], Any]


def available(gpu: int = -1) -> list[str]:
    """The variants whose packages this computer has."""
    if gpu < 0:
        peers = [name for name in PEERS if name != GRAPH]
        return [*CHAINERS, *(name for name in peers if all(map(_is_there, PEERS[name][1:])))]
    if not _is_there("torch"):
        return list(GPU_CHAINERS)
    import torch

    return [*GPU_CHAINERS, *(GPU_TORCHES if torch.cuda.is_available() else ())]


def _is_there(package: str) -> bool:
    return package in sys.modules or importlib.util.find_spec(package) is not None


def left_out(name: str, why: str) -> None:
    """Say on stderr that a variant is not measured."""
    sys.stderr.write(f"{name} is left out: {why}\n")


def digit_pairs(count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """MNIST's first test images, degraded and original: float32 (N, 1, 28, 28)."""
    originals = load_mnist()[1][:count]
    return degrade(originals), originals


def make_variant(
    name: str, inputs: np.ndarray, targets: np.ndarray, gpu: int = -1, batch: int = 64
) -> Variant:
    """Make one variant. All variants begin with the same weights.

    Parameters
    ----------
    name : str
        One of those that `available` gives.
    inputs, targets : ndarray of float32, shape (N, 1, H, W)
        The images to train on; they are put on the device as a whole.
    gpu : int, default -1
        CUDA device number; negative is the CPU.
    batch : int, default 64
        Images a step, for the variant that is made for one size of batches.
    """
    if name in PEERS:
        peer = importlib.import_module(f"srmnist.benchmark.peers.{PEERS[name][0]}")
        return peer.make(name, initial_model(0), inputs, targets, gpu, batch)
    if name not in (*CHAINERS, *GPU_CHAINERS):
        raise ValueError(f"there is no variant {name!r}")
    if gpu >= 0 and name != PLAIN:
        return _gpu_engine(make_chainer_optimizer(name, gpu), targets, captured=name != UNCAPTURED)
    return _chainer_variant(make_chainer_optimizer(name, gpu), name == PLAIN, inputs, targets)


def make_chainer_optimizer(name: str, gpu: int = -1) -> chainer.Optimizer:
    """The optimiser of a variant of Chainer, with a model of its own."""
    model = initial_model(0)
    model.to_device(select_device(gpu))
    optimizer = make_optimizer(TUNED if name == TUNED_ENGINE else ARTICLE, model)
    # A run of "tuned" starts at a low rate. Its peak would enlarge rounding errors beyond `check`'s limits.
    optimizer.alpha = _ALPHA
    return optimizer


def _chainer_variant(
    optimizer: chainer.Optimizer, plain: bool, inputs: np.ndarray, targets: np.ndarray
) -> Variant:
    model = optimizer.target
    xp = model.xp
    inputs, targets = (xp.asarray(images) for images in (inputs, targets))
    reporter = chainer.Reporter()
    reporter.add_observer("main", model)

    def select(chosen: Chosen) -> Any:
        return chosen if isinstance(chosen, slice) else xp.asarray(chosen)

    def step(chosen: Chosen) -> Any:
        chosen = select(chosen)
        observation: dict[str, Any] = {}
        with chainer.using_config("plain", plain), reporter.scope(observation):
            update(optimizer, inputs[chosen], targets[chosen])
        return chainer.as_array(observation["main/loss"])

    def evaluate(chosen: Chosen) -> Any:
        chosen = select(chosen)
        with ExitStack() as stack:
            for key, value in (("plain", plain), ("train", False), ("enable_backprop", False)):
                stack.enter_context(chainer.using_config(key, value))
            if xp is np:
                return model.forward(inputs[chosen]).array
            return model(inputs[chosen], targets[chosen]).array

    return Variant(step, evaluate)


def _gpu_engine(optimizer: chainer.Optimizer, originals: np.ndarray, captured: bool) -> Variant:
    from srmnist.engine.gpu import device, plan
    from srmnist.engine.gpu.resident import Resident
    from srmnist.engine.gpu.step import Batches, training_step
    from srmnist.engine.gpu.vectors import Vectors

    vectors = Vectors(device.current(), optimizer)
    data = Resident(vectors.device, Pairs(np.rint(originals[:, 0] * 255).astype(np.uint8), 10))
    evaluation = Batches(vectors, data, plan.evaluation, captured)
    return Variant(training_step(vectors, data, captured), evaluation)


_STEPS = 3
# Three steps of Adam move a weight by up to 0.003; rounding decides the direction of the smallest gradients.
# A wrong layer or wrong running statistics change outputs by 0.05 and more.
_LOSS_TOLERANCE, _OUTPUT_TOLERANCE = 1e-3, 0.02


def check(name: str, variant: Variant, inputs: np.ndarray, targets: np.ndarray, batch: int = 64) -> None:
    """Compare a new variant on the CPU with plain Chainer: three losses in training, then restored images.

    Raises
    ------
    UserError
        If it computes something else.
    """
    reference = _chainer_variant(make_chainer_optimizer(name), True, inputs, targets)
    chosen = np.arange(min(batch, len(inputs)))
    for _ in range(_STEPS if variant.step else 0):
        found, expected = float(variant.step(chosen)), float(reference.step(chosen))
        if not abs(found / expected - 1) <= _LOSS_TOLERANCE:
            raise UserError(f"wrong result: a loss of {found:.6f}; plain Chainer's is {expected:.6f}")
    found, expected = (np.asarray(each.evaluate(chosen)) for each in (variant, reference))
    difference = np.abs(found.reshape(expected.shape) - expected).max()
    if not difference <= _OUTPUT_TOLERANCE:
        raise UserError(f"wrong result: restored images differ from plain Chainer's by {difference:.3f}")
