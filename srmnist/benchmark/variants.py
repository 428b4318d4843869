"""The network and its training step in each implementation that can be compared, on the CPU and on a GPU."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, NamedTuple

import chainer
import numpy as np

from srmnist.data import load_mnist
from srmnist.degradation import degrade
from srmnist.model import CNNAE
from srmnist.system.device import select_device
from srmnist.system.errors import first_line
from srmnist.training.recipes import ARTICLE, TUNED, make_optimizer

ENGINE, TUNED_ENGINE, PLAIN = "srmnist engine", "engine, recipe tuned", "plain Chainer"
UNCAPTURED = "engine uncaptured"
EAGER, CHANNELS_LAST, COMPILED = "PyTorch eager", "PyTorch channels_last", "torch.compile"
GRAPH = "PyTorch CUDA graph"
CHAINERS = (ENGINE, TUNED_ENGINE, PLAIN)  # on the CPU
GPU_CHAINERS = (ENGINE, UNCAPTURED, PLAIN)
TORCHES = (EAGER, CHANNELS_LAST, COMPILED)
GPU_TORCHES = (*TORCHES, GRAPH)


class Variant(NamedTuple):
    """One implementation: a training step on the batch that indices name, and the loss of such a batch."""

    step: Callable[[np.ndarray], Any]
    evaluate: Callable[[np.ndarray], Any]


def variants(names: Iterable[str], gpu: int = -1, batch: int = 64) -> dict[str, Variant]:
    """Make the named variants, each with a model of its own, on MNIST's test images.

    A variant of PyTorch that cannot compute a batch here is left out, and stderr says why.
    """
    _, originals = load_mnist()
    degraded = degrade(originals)
    made = {}
    for name in names:
        try:
            variant = make_variant(name, degraded, originals, gpu, batch)
            if name in GPU_TORCHES:
                variant.step(np.arange(batch) % len(originals))
                variant.evaluate(np.arange(batch) % len(originals))
        except (
            Exception
        ) as error:  # torch.compile wants a compiler, and on a GPU Triton, and says so in many ways
            if name not in GPU_TORCHES:
                raise
            sys.stderr.write(f"{name} is left out: {first_line(error)}\n")
        else:
            made[name] = variant
    return made


def available(gpu: int = -1) -> list[str]:
    """The variants that this computer can run."""
    names = list(CHAINERS if gpu < 0 else GPU_CHAINERS)
    try:
        import torch
    except ImportError:
        return names
    if gpu < 0:
        return [*names, *TORCHES]
    return [*names, *GPU_TORCHES] if torch.cuda.is_available() else names


def make_variant(
    name: str, degraded: np.ndarray, originals: np.ndarray, gpu: int = -1, batch: int = 64
) -> Variant:
    """Make one variant.

    Parameters
    ----------
    name : str
        One of those that `available` gives.
    degraded, originals : ndarray of float32, shape (N, 1, 28, 28)
        The images to train on; they are put on the device as a whole.
    gpu : int, default -1
        CUDA device number; negative is the CPU.
    batch : int, default 64
        Images a step, for the variant that is made for one size of batches.
    """
    if name in GPU_TORCHES:
        return _torch_variant(name, degraded, originals, gpu, batch)
    if gpu >= 0 and name in (ENGINE, UNCAPTURED):
        return _gpu_engine(degraded, originals, gpu, captured=name == ENGINE)
    return _chainer_variant(name, degraded, originals, gpu)


def make_chainer_optimizer(name: str, gpu: int = -1) -> chainer.Optimizer:
    """The optimiser of a variant that is not PyTorch's, with a model of its own."""
    model = CNNAE()
    model.to_device(select_device(gpu))
    return make_optimizer(TUNED if name == TUNED_ENGINE else ARTICLE, model)


def _chainer_variant(name: str, degraded: np.ndarray, originals: np.ndarray, gpu: int) -> Variant:
    optimizer = make_chainer_optimizer(name, gpu)
    model, plain = optimizer.target, name == PLAIN
    inputs, targets = (model.xp.asarray(images) for images in (degraded, originals))

    def step(indices: np.ndarray) -> None:
        chosen = model.xp.asarray(indices)
        with chainer.using_config("plain", plain):
            optimizer.update(model, inputs[chosen], targets[chosen])

    def evaluate(indices: np.ndarray) -> None:
        chosen = model.xp.asarray(indices)
        with ExitStack() as stack:
            for key, value in (("plain", plain), ("train", False), ("enable_backprop", False)):
                stack.enter_context(chainer.using_config(key, value))
            model(inputs[chosen], targets[chosen])

    return Variant(step, evaluate)


def _gpu_engine(degraded: np.ndarray, originals: np.ndarray, gpu: int, captured: bool) -> Variant:
    from srmnist.engine.gpu import device, plan
    from srmnist.engine.gpu.step import Batches, training_step
    from srmnist.engine.gpu.vectors import Vectors

    optimizer = make_chainer_optimizer(ENGINE, gpu)
    vectors = Vectors(device.current(), optimizer)
    data = [vectors.device.xp.asarray(images) for images in (degraded, originals)]
    evaluation = Batches(vectors, *data, plan.evaluation, captured)
    return Variant(training_step(vectors, *data, captured), evaluation)


def torch_model() -> Any:
    """The same layers in PyTorch."""
    from torch import nn

    channels = (1, 16, 32, 64)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(channels):
        convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(after, eps=2e-5), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 3, padding=1), nn.Sigmoid())


def _torch_variant(name: str, degraded: np.ndarray, originals: np.ndarray, gpu: int, batch: int) -> Variant:
    """PyTorch as its users would write it for speed: the data on the device, one upload of indices a step.

    The upload goes through pinned memory and is not waited for. On a GPU Adam is fused, and convolutions are
    in float32, without TF32, as the engine's are.
    """
    import torch

    device = torch.device("cuda", gpu) if gpu >= 0 else torch.device("cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if name == CHANNELS_LAST else torch.contiguous_format
    model = torch_model().to(device, memory_format=layout)
    options = {"fused": True, "capturable": name == GRAPH} if gpu >= 0 else {}
    optimizer = torch.optim.Adam(model.parameters(), **options)
    inputs, targets = (torch.from_numpy(images).to(device) for images in (degraded, originals))

    def loss_of(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.mse_loss(model(x), t)

    if name == COMPILED:
        loss_of = torch.compile(loss_of, mode="reduce-overhead" if gpu >= 0 else "default")

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        return loss_of(*(data[chosen].to(memory_format=layout) for data in (inputs, targets)))

    def step(chosen: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(chosen).backward()
        optimizer.step()

    def uploaded(indices: np.ndarray) -> torch.Tensor:
        host = torch.from_numpy(indices)
        return host.pin_memory().to(device, non_blocking=True) if gpu >= 0 else host

    def run(train: bool, chosen: torch.Tensor) -> None:
        if name == COMPILED and gpu >= 0:
            torch.compiler.cudagraph_mark_step_begin()
        model.train(train)
        with torch.set_grad_enabled(train):
            (step if train else loss)(chosen)

    if name == GRAPH:
        chosen = torch.zeros(batch, dtype=torch.int64, device=device)
        replays = {train: _captured(lambda train=train: run(train, chosen)) for train in (True, False)}

        def replay(train: bool, indices: np.ndarray) -> None:
            chosen.copy_(torch.from_numpy(indices).pin_memory(), non_blocking=True)
            replays[train]()

        return Variant(lambda indices: replay(True, indices), lambda indices: replay(False, indices))
    return Variant(
        lambda indices: run(True, uploaded(indices)), lambda indices: run(False, uploaded(indices))
    )


def _captured(run: Callable[[], None]) -> Callable[[], None]:
    """What replays the work of a function as one CUDA graph, as PyTorch's documentation shows."""
    import torch

    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):  # memory and cuDNN's choices are made before the capture
            run()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay
