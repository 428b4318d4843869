"""The network and its training step in each implementation that can be compared."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, NamedTuple

import chainer
import numpy as np

from srmnist.data import load_mnist
from srmnist.degradation import degrade
from srmnist.model import CNNAE
from srmnist.training.recipes import ARTICLE, TUNED, make_optimizer

CHAINERS = ENGINE, TUNED_ENGINE, PLAIN = "srmnist engine", "engine, recipe tuned", "plain Chainer"
TORCHES = ("PyTorch eager", "PyTorch channels_last", "torch.compile")


class Variant(NamedTuple):
    """One implementation: a training step on a batch of indices, an evaluation of the same batch."""

    step: Callable[[np.ndarray], Any]
    evaluate: Callable[[np.ndarray], Any]


def variants(names: Iterable[str]) -> dict[str, Variant]:
    """Make the named variants, each with a model of its own, on MNIST's test images."""
    _, originals = load_mnist()
    degraded = degrade(originals)
    return {name: make_variant(name, degraded, originals) for name in names}


def make_variant(name: str, degraded: np.ndarray, originals: np.ndarray) -> Variant:
    """Make one variant, to train on these images, float32 (N, 1, 28, 28)."""
    if name in CHAINERS:
        return _chainer_variant(degraded, originals, name)
    return _torch_variant(degraded, originals, name)


def available() -> list[str]:
    """The variants that this machine can run."""
    names = list(CHAINERS)
    try:
        import torch  # noqa: F401
    except ImportError:
        return names
    return [*names, *TORCHES]


def make_chainer_optimizer(name: str) -> chainer.Optimizer:
    """The optimiser of one of `CHAINERS`, with a model of its own."""
    return make_optimizer(TUNED if name == TUNED_ENGINE else ARTICLE, CNNAE())


def _chainer_variant(degraded: np.ndarray, originals: np.ndarray, name: str) -> Variant:
    optimizer = make_chainer_optimizer(name)
    model, plain = optimizer.target, name == PLAIN

    def step(batch: np.ndarray) -> None:
        with chainer.using_config("plain", plain):
            optimizer.update(model, degraded[batch], originals[batch])

    def evaluate(batch: np.ndarray) -> None:
        with ExitStack() as stack:
            for name, value in (("plain", plain), ("train", False), ("enable_backprop", False)):
                stack.enter_context(chainer.using_config(name, value))
            model.forward(degraded[batch])

    return Variant(step, evaluate)


def torch_model() -> Any:
    """The same layers in PyTorch."""
    from torch import nn

    channels = (1, 16, 32, 64)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(channels):
        convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(after, eps=2e-5), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 3, padding=1), nn.Sigmoid())


def _torch_variant(degraded: np.ndarray, originals: np.ndarray, name: str) -> Variant:
    import torch

    layout = torch.channels_last if "channels_last" in name else torch.contiguous_format
    model = torch_model().to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters())
    run = torch.compile(model) if "compile" in name else model
    inputs, targets = torch.from_numpy(degraded), torch.from_numpy(originals)

    def step(batch: np.ndarray) -> None:
        index = torch.from_numpy(batch)
        model.train()
        optimizer.zero_grad(set_to_none=True)
        x, t = inputs[index].to(memory_format=layout), targets[index].to(memory_format=layout)
        torch.nn.functional.mse_loss(run(x), t).backward()
        optimizer.step()

    def evaluate(batch: np.ndarray) -> None:
        model.eval()
        with torch.no_grad():
            run(inputs[torch.from_numpy(batch)].to(memory_format=layout))

    return Variant(step, evaluate)
