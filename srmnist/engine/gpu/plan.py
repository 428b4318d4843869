"""What the GPU is to do, as plain data: which kernels, on how many blocks and threads, with which buffers.

Nothing here knows CuPy. `machine.Machine` runs such a list on a GPU, and the tests run the same list, with
the same kernels, grids and buffer sizes, on the CPU.

A buffer is a flat array with a name. These are the caller's to fill in: "parameters" (the eleven of
`PARAMETERS` in one vector), "average1" to "average3" (running mean and variance of each normalisation,
(2, C)), and "x" (B, H, W), or "indices", "inputs" and "targets" for `batch`; for `adam`, also
"coefficients", "m" and "v". The kernels make all others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from chainer.types import NdArray

from srmnist.engine.network import SHAPES

CHANNELS = (16, 32, 64)
PARAMETERS = SHAPES  # in the order of network.parameters, in which "parameters" and "gradient" hold them
SIZES = [math.prod(shape) for shape in PARAMETERS]
OFFSETS = [sum(SIZES[:i]) for i in range(len(SIZES))]
COUNT = sum(SIZES)

# As in common.cuh: where the layouts that `pack` makes begin, and a tile's size.
_PACKED = {"w1": 0, "w2": 144, "w3": 4752, "w4": 23184, "reversed2": 23760, "reversed3": 28368}
_PACKED_SIZE = 46800
_TILE_H, _TILE_W = 4, 28
# Rows of a block that sums gradients of weights, as in convolution.cuh.
_ROWS = {2: 4, 3: 7}
_SCALAR_BLOCKS = 128  # at most, of the kernels that walk over all pixels of a batch

COEFFICIENTS = 6  # of Adam, see training.cuh


class Launch(NamedTuple):
    """One kernel's launch.

    An argument is a buffer's name, a place in one, None for a null pointer, or a scalar of the kernel's type.
    """

    kernel: str
    blocks: int
    threads: int
    arguments: tuple[str | Place | np.generic | None, ...]


class Place(NamedTuple):
    """A pointer to the middle of a buffer."""

    buffer: str
    offset: int


class Normalisation(NamedTuple):
    """What a ``chainer.links.BatchNormalization`` was made with."""

    eps: float
    decay: float


class Shape(NamedTuple):
    """Of a batch of images."""

    batch: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Of all images."""
        return self.batch * self.height * self.width

    def tiles(self, rows: int = _TILE_H) -> int:
        """Blocks that have a tile of some rows each."""
        return self.batch * -(-self.height // rows) * -(-self.width // _TILE_W)


def buffers(shape: Shape) -> dict[str, tuple[int, type]]:
    """Size and dtype of every buffer that the lists below use, but for "inputs" and "targets"."""
    pixels, tiles = shape.pixels, shape.tiles()
    shares = [tiles * SIZES[0], shape.tiles(_ROWS[2]) * SIZES[3], shape.tiles(_ROWS[3]) * SIZES[6],
              tiles * SIZES[9]]  # fmt: skip
    floats = {
        "parameters": COUNT, "gradient": COUNT, "m": COUNT, "v": COUNT, "packed": _PACKED_SIZE,
        "x": pixels, "t": pixels, "y": pixels, "gy": pixels, "gz": pixels, "loss": 1,
        "coefficients": COEFFICIENTS,
        "d3": pixels * CHANNELS[2], "g2": pixels * CHANNELS[1], "g1": pixels * CHANNELS[0],
        "shares": max(shares),
    }  # fmt: skip
    for layer, channels in enumerate(CHANNELS, 1):
        floats[f"a{layer}"] = pixels * channels
        floats[f"norm{layer}"] = 7 * channels
        floats[f"average{layer}"] = 2 * channels
    doubles = {"sums": tiles * 2 * CHANNELS[2], "bias_shares": _SCALAR_BLOCKS, "loss_shares": _SCALAR_BLOCKS}
    return {
        **{name: (size, np.float32) for name, size in floats.items()},
        **{name: (size, np.float64) for name, size in doubles.items()},
        "indices": (shape.batch, np.int32),
    }


def split(vector: NdArray) -> list[NdArray]:
    """Views of "parameters" or "gradient", in the shapes of `PARAMETERS`."""
    return [
        vector[offset : offset + size].reshape(shape)
        for offset, size, shape in zip(OFFSETS, SIZES, PARAMETERS, strict=True)
    ]


def names(launches: Iterable[Launch]) -> set[str]:
    """The buffers that a list uses."""
    return {
        argument.buffer if isinstance(argument, Place) else argument
        for launch in launches
        for argument in launch.arguments
        if isinstance(argument, (str, Place))
    }


def gradients(shape: Shape, layers: tuple[Normalisation, ...]) -> list[Launch]:
    """A training step as far as "gradient" and "loss", from "indices"."""
    forth = [*batch(shape), *forward(shape, layers, train=True), *squared_error(shape)]
    return [*forth, *backward(shape, train=True)]


def evaluation(shape: Shape, layers: tuple[Normalisation, ...]) -> list[Launch]:
    """From "indices" to "loss", with the running statistics."""
    return [*batch(shape), *forward(shape, layers, train=False), *squared_error(shape, train=False)]


def size_in_bytes(shape: Shape) -> int:
    """What the buffers of training steps and evaluations take, each having its own."""
    layers = (Normalisation(0.0, 0.0),) * 3
    sizes = {name: size * np.dtype(dtype).itemsize for name, (size, dtype) in buffers(shape).items()}
    lists = ([*gradients(shape, layers), *adam()], evaluation(shape, layers))
    return sum(sizes[name] for launches in lists for name in names(launches) & set(sizes))


def batch(shape: Shape) -> list[Launch]:
    """Gather the images that "indices" names: "x" and "t"."""
    pixels = np.int32(shape.height * shape.width)
    blocks = -(-shape.pixels // 256)
    arguments = ("indices", "inputs", "targets", "x", "t", pixels, np.int64(shape.pixels))
    return [Launch("gather", blocks, 256, arguments)]


def forward(
    shape: Shape, layers: tuple[Normalisation, ...], train: bool, update: bool = True
) -> list[Launch]:
    """The network from "x" to "y".

    Parameters
    ----------
    shape : Shape
    layers : tuple of Normalisation
        Of the three.
    train : bool
        Whether to normalise by the batch's own statistics.
    update : bool
        Whether to bring the running statistics up to date, if `train`.
    """
    tiles, size = shape.tiles(), _size(shape)
    sums = "sums" if train else None
    convolutions = [
        ("conv1", 128, ("x", "packed", "a1", sums)),
        ("conv2", 128, ("a1", None, "norm1", _packed("w2"), None, None, "a2", sums)),
        ("conv3", 128, ("a2", None, "norm2", _packed("w3"), None, None, "a3", sums)),
    ]
    launches = [Launch("pack", -(-_PACKED_SIZE // 256), 256, ("parameters", "packed"))]
    for layer, (kernel, threads, arguments) in enumerate(convolutions, 1):
        launches.append(Launch(kernel, tiles, threads, (*arguments, *size)))
        launches.append(_normalise(shape, layer, layers[layer - 1], train, update))
    launches.append(Launch("conv4", tiles, 128, ("a3", "norm3", "packed", "parameters", "y", *size)))
    return launches


def _normalise(shape: Shape, layer: int, link: Normalisation, train: bool, update: bool) -> Launch:
    gamma, beta = (np.int32(OFFSETS[3 * layer + i]) for i in (-2, -1))
    norm, average, channels = f"norm{layer}", f"average{layer}", CHANNELS[layer - 1]
    if not train:
        return Launch("fixed_statistics", channels, 32,
                      ("parameters", gamma, beta, norm, average, np.float64(link.eps)))  # fmt: skip
    return Launch("batch_statistics", channels, 128, (
        "sums", np.int32(shape.tiles()), "parameters", gamma, beta, norm, average if update else None,
        np.int64(shape.pixels), np.float64(link.eps), np.float64(link.decay),
    ))  # fmt: skip


def squared_error(shape: Shape, train: bool = True) -> list[Launch]:
    """The mean squared error of "y" against "t": "loss", and what `backward` starts from, if `train`."""
    blocks, total = _scalar_blocks(shape), np.int64(shape.pixels)
    gradient = "gradient" if train else None
    return [
        Launch("squared_error", blocks, 256, ("y", "t", "gz", "bias_shares", "loss_shares", total)),
        Launch("sum_scalars", 1, 256,
               ("bias_shares", "loss_shares", np.int32(blocks), gradient, "loss", total)),
    ]  # fmt: skip


def sigmoid_gradient(shape: Shape) -> list[Launch]:
    """From "y" and its gradient "gy" to "gz" for `backward`."""
    blocks, total = _scalar_blocks(shape), np.int64(shape.pixels)
    return [
        Launch("sigmoid_gradient", blocks, 256, ("y", "gy", "gz", "bias_shares", total)),
        Launch("sum_scalars", 1, 256, ("bias_shares", None, np.int32(blocks), "gradient", None, total)),
    ]


def backward(shape: Shape, train: bool) -> list[Launch]:
    """All of "gradient" but conv4's bias, from "gz" and what `forward` left, with the same `train`."""
    tiles, size = shape.tiles(), _size(shape)
    return [
        Launch("conv4_weights", tiles, 256, ("gz", "a3", "norm3", "packed", "shares", "sums", *size)),
        _sum_shares(tiles, 1, 64, 9),
        _bn_gradient(shape, 3, train),
        Launch("bn3_gradient", tiles, 256, ("gz", "a3", "norm3", "packed", "d3", *size)),
        Launch("conv3_weights", shape.tiles(_ROWS[3]), 256,
               ("a2", "norm2", "d3", None, None, "shares", *size)),
        _sum_shares(shape.tiles(_ROWS[3]), 32, 64, 6),
        Launch("conv3_gradient", tiles, 128,
               ("d3", None, None, _packed("reversed3"), "a2", "norm2", "g2", "sums", *size)),
        _bn_gradient(shape, 2, train),
        Launch("conv2_weights", shape.tiles(_ROWS[2]), 128,
               ("a1", "norm1", "a2", "g2", "norm2", "shares", *size)),
        _sum_shares(shape.tiles(_ROWS[2]), 16, 32, 3),
        Launch("conv2_gradient", tiles, 128,
               ("a2", "g2", "norm2", _packed("reversed2"), "a1", "norm1", "g1", "sums", *size)),
        _bn_gradient(shape, 1, train),
        Launch("conv1_weights", tiles, 128, ("x", "a1", "g1", "norm1", "shares", *size)),
        _sum_shares(tiles, 1, 16, 0),
    ]  # fmt: skip


def adam() -> list[Launch]:
    """Update "parameters", "m" and "v" by "gradient" and "coefficients"."""
    return [Launch("adam", -(-COUNT // 128), 128, ("coefficients", "parameters", "gradient", "m", "v"))]


def _bn_gradient(shape: Shape, layer: int, train: bool) -> Launch:
    gamma, beta = (np.int32(OFFSETS[3 * layer + i]) for i in (-2, -1))
    return Launch("bn_gradient", CHANNELS[layer - 1], 128, (
        "sums", np.int32(shape.tiles()), f"norm{layer}", "gradient", gamma, beta,
        np.int64(shape.pixels), np.int32(train),
    ))  # fmt: skip


def _sum_shares(blocks: int, inputs: int, outputs: int, parameter: int) -> Launch:
    at, weights = OFFSETS[parameter], SIZES[parameter]
    return Launch("sum_shares", -(-weights // 8), 256, (
        "shares", np.int32(blocks), np.int32(inputs), np.int32(outputs), "gradient", np.int32(at),
    ))  # fmt: skip


def _packed(layout: str) -> Place:
    return Place("packed", _PACKED[layout])


def _size(shape: Shape) -> tuple[np.int32, np.int32]:
    return np.int32(shape.height), np.int32(shape.width)


def _scalar_blocks(shape: Shape) -> int:
    return min(-(-shape.pixels // 256), _SCALAR_BLOCKS)
