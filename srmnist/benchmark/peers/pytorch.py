"""The network in PyTorch: eager in two layouts, compiled, and as a CUDA graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from srmnist.benchmark import peers
from srmnist.benchmark.variants import CHANNELS_LAST, COMPILED, GRAPH, Chosen, Variant
from srmnist.model import CNNAE


def network(model: CNNAE) -> nn.Sequential:
    """The layers of `model`, with its weights."""
    channels = (1, 16, 32, 64)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(channels):
        convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(after, peers.EPSILON, 1 - peers.DECAY), nn.ReLU()]
    made = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 3, padding=1), nn.Sigmoid())
    links = [model[name] for name in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "conv4")]
    with torch.no_grad():
        for layer, link in zip((layer for layer in made if hasattr(layer, "weight")), links, strict=True):
            arrays = (link.W, link.b) if hasattr(link, "W") else (link.gamma, link.beta)
            for parameter, array in zip((layer.weight, layer.bias), arrays, strict=True):
                if parameter is not None:
                    parameter.copy_(torch.from_numpy(array.array))
    return made


def make(
    name: str, model: CNNAE, inputs: np.ndarray, targets: np.ndarray, gpu: int = -1, batch: int = 64
) -> Variant:
    """One of PyTorch's variants: the data on the device, one upload of indices a step, fused Adam.

    On a GPU the upload goes through pinned memory and is not waited for, and convolutions are in float32,
    without TF32, as the engine's are.
    """
    device = torch.device("cuda", gpu) if gpu >= 0 else torch.device("cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    # On the CPU torch.compile is faster in this layout, too.
    channels_last = name == CHANNELS_LAST or (name == COMPILED and gpu < 0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    restore = network(model).to(device, memory_format=layout)
    parameters = list(restore.parameters())
    optimizer = torch.optim.Adam(parameters, fused=True, capturable=name == GRAPH)
    data = [torch.from_numpy(images).to(device) for images in (inputs, targets)]
    train_mode = restore.train

    def loss_of(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(restore(x), t)

    if name == COMPILED:
        torch.compiler.reset()  # it stops to compile after some sizes of images
        options: dict[str, Any] = {"mode": "reduce-overhead" if gpu >= 0 else "default", "dynamic": False}
        loss_of, forward = torch.compile(loss_of, **options), torch.compile(restore, **options)
    else:
        forward = restore

    def selected(chosen: Chosen | torch.Tensor) -> list[torch.Tensor]:
        if isinstance(chosen, np.ndarray):
            host = torch.from_numpy(chosen)
            chosen = host.pin_memory().to(device, non_blocking=True) if gpu >= 0 else host
        return [images[chosen].to(memory_format=layout) for images in data]

    def step(chosen: Chosen | torch.Tensor) -> torch.Tensor:
        _begin(name, gpu)
        train_mode(True)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(*selected(chosen))
        loss.backward()
        optimizer.step()
        return loss.detach()

    def evaluate(chosen: Chosen | torch.Tensor) -> torch.Tensor:
        _begin(name, gpu)
        train_mode(False)
        with torch.no_grad():
            return loss_of(*selected(chosen)) if gpu >= 0 else forward(selected(chosen)[0])

    if name == GRAPH:
        return Variant(*(_replayed(run, device, batch) for run in (step, evaluate)))
    return Variant(step, evaluate)


def _begin(name: str, gpu: int) -> None:
    if name == COMPILED and gpu >= 0:
        torch.compiler.cudagraph_mark_step_begin()


def _replayed(
    run: Callable[[torch.Tensor], object], device: torch.device, batch: int
) -> Callable[[Any], None]:
    """The work of a function as one CUDA graph, as PyTorch's documentation shows."""
    chosen = torch.zeros(batch, dtype=torch.int64, device=device)
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):  # memory and cuDNN's choices are made before the capture
            run(chosen)
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run(chosen)

    def replay(indices: np.ndarray) -> None:
        chosen.copy_(torch.from_numpy(indices).pin_memory(), non_blocking=True)
        graph.replay()

    return replay
