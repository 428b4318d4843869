"""The GPU's work as plain data: kernels, their blocks and threads, and the buffers that they take.

Nothing here needs CuPy. `device.Device` runs such a list on a GPU; the tests run the same list, with the same
kernels, grids and buffer sizes, on the CPU.

A buffer is a flat array with a name. The caller fills in these:

- "parameters": the eleven parameters in one vector, in the order of `network.parameters`
- "average1" to "average3": the running mean and variance of each normalisation, (2, C)
- "x": images (B, H, W); or "indices" with the data set "images", (N, H, W) of uint8, and the tables "rows",
  "row_fractions", "columns" and "column_fractions" from `samples`, of which `batch` makes "x" and "t"
- for `update`: "coefficients", "m" and "v"; at the weights that Muon updates, "m" has its momentum
  and "v" is room for its update

The kernels fill in all others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from chainer.types import NdArray

from srmnist.engine.network import SHAPES
from srmnist.engine.resampling import axis
from srmnist.training import recipes

CHANNELS = (16, 32, 64)
SIZES = [math.prod(shape) for shape in SHAPES]
OFFSETS = [sum(SIZES[:i]) for i in range(len(SIZES))]
COUNT = sum(SIZES)  # of all parameters

# The layouts of the convolutions' weights that `pack` makes, one after the other, and their sizes.
_LAYOUTS = {"P1": SIZES[0], "P2": SIZES[3], "P3": SIZES[6], "P4": SIZES[9], "Q2": SIZES[3], "Q3": SIZES[6]}
_PACKED = dict(zip([*_LAYOUTS, "PACKED"], itertools.accumulate(_LAYOUTS.values(), initial=0), strict=True))
_NORM = ("SCALE", "SHIFT", "MEAN", "INVERSE_STD", "BY_G", "BY_A", "CONSTANT")  # rows of "norm1" to "norm3"
# Of Adam and of Muon.
COEFFICIENTS = ("ALPHA_T", "ONE_MINUS_BETA1", "ONE_MINUS_BETA2", "EPS", "ETA", "WEIGHT_DECAY", "MUON_RATE")

_TILE_H, _TILE_W = 4, 28
_THREADS = 128  # of a block of a convolution, and of a sum over tiles
_WIDE = 256  # threads of a block that has 64 channels to itself, or walks over all pixels
_ROWS = {2: 4, 3: 7}  # that a block of conv2_weights and of conv3_weights has
_SCALAR_BLOCKS = 128  # at most, of a kernel that walks over all pixels
_SUMMED = 16  # weights whose partial sums a block of sum_partials adds up

# The source of the kernels begins with these.
CONSTANTS = {f"C{i}": channels for i, channels in enumerate(CHANNELS, 1)} | _PACKED
CONSTANTS |= dict(zip(("W1", "W2", "W3", "W4", "BIAS"), (*OFFSETS[::3], OFFSETS[-1]), strict=True))
CONSTANTS |= {name: i for names in (_NORM, COEFFICIENTS) for i, name in enumerate(names)}
CONSTANTS |= {"PARAMETERS": COUNT, "TILE_H": _TILE_H, "TILE_W": _TILE_W, "THREADS": _THREADS, "WIDE": _WIDE}
CONSTANTS |= {"ROWS2": _ROWS[2], "ROWS3": _ROWS[3], "SUMMED": _SUMMED, "MUON_ITERATIONS": recipes.ITERATIONS}
FRACTIONS = dict(zip(("MUON_A", "MUON_B", "MUON_C"), recipes.QUINTIC, strict=True))
FRACTIONS |= {f"MUON_D{i}{j}": recipes.DECORRELATION[i][j] for i in range(3) for j in range(3)}
FRACTIONS["MUON_MOMENTUM"] = recipes.MOMENTUM

# When a launch runs: after those before it on the chain; beside the chain; or after all that runs beside it.
CHAIN, BESIDE, JOINED = range(3)


class Launch(NamedTuple):
    """One kernel's launch.

    An argument is a buffer's name, None for a null pointer, or a scalar of the kernel's type.
    `order` is `CHAIN`, `BESIDE` or `JOINED`; a list ends when all its launches have ended.
    """

    kernel: str
    blocks: int
    threads: int
    arguments: tuple[str | np.generic | None, ...]
    order: int = CHAIN


class Normalisation(NamedTuple):
    """The constants of a ``chainer.links.BatchNormalization``."""

    eps: float
    decay: float


def ceil_divide(dividend: int, divisor: int) -> int:
    """The quotient, rounded up."""
    return -(-dividend // divisor)


class Shape(NamedTuple):
    """The shape of a batch of images."""

    batch: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Of all images."""
        return self.batch * self.height * self.width

    def tiles(self, rows: int = _TILE_H) -> int:
        """Blocks that have a tile of `rows` rows each."""
        return self.batch * ceil_divide(self.height, rows) * ceil_divide(self.width, _TILE_W)


def buffers(shape: Shape) -> dict[str, tuple[int, type]]:
    """Size and dtype of every buffer that the lists below use, but for "images"."""
    pixels, tiles = shape.pixels, shape.tiles()
    floats = {name: COUNT for name in ("parameters", "gradient", "m", "v")}
    floats |= {name: pixels for name in ("x", "t", "y", "gy", "gz")}
    floats |= {"packed": _PACKED["PACKED"], "coefficients": len(COEFFICIENTS), "loss": 1}
    floats |= {"g1": pixels * CHANNELS[0], "g2": pixels * CHANNELS[1], "d3": pixels * CHANNELS[2]}
    for layer, channels in enumerate(CHANNELS, 1):
        floats |= {f"a{layer}": pixels * channels, f"norm{layer}": len(_NORM) * channels}
        floats |= {f"average{layer}": 2 * channels}
    for layer in (1, 2, 3, 4):
        floats[f"partials{layer}"] = shape.tiles(_ROWS.get(layer, _TILE_H)) * SIZES[3 * layer - 3]
    floats |= {"row_fractions": 3 * shape.height, "column_fractions": 3 * shape.width}
    ints = {"indices": shape.batch, "rows": 2 * shape.height, "columns": 2 * shape.width}
    doubles = {"sums": tiles * 2 * CHANNELS[2], "bias_sums": _SCALAR_BLOCKS, "loss_sums": _SCALAR_BLOCKS}
    kinds = ((floats, np.float32), (doubles, np.float64), (ints, np.int32))
    return {name: (size, dtype) for sizes, dtype in kinds for name, size in sizes.items()}


def split(vector: NdArray) -> list[NdArray]:
    """Views of "parameters", "gradient", "m" or "v" in the shapes of the eleven parameters."""
    return [
        vector[offset : offset + size].reshape(shape)
        for offset, size, shape in zip(OFFSETS, SIZES, SHAPES, strict=True)
    ]


def names(launches: Iterable[Launch]) -> set[str]:
    """The buffers that a list uses."""
    return {name for launch in launches for name in launch.arguments if isinstance(name, str)}


def gradients(shape: Shape, layers: tuple[Normalisation, ...], train: bool = True) -> list[Launch]:
    """A training step as far as "gradient" and "loss", from "indices"; `train` as for `forward`."""
    ahead = [*batch(shape), *forward(shape, layers, train), *squared_error(shape)]
    return [*ahead, *backward(shape, train)]


def step(
    shape: Shape, layers: tuple[Normalisation, ...], train: bool = True, muon: bool = False
) -> list[Launch]:
    """A whole training step, from "indices" and "coefficients".

    Parameters
    ----------
    shape : Shape
    layers : tuple of Normalisation
    train : bool, default True
        As for `forward`.
    muon : bool, default False
        As for `update`.
    """
    return [*gradients(shape, layers, train), *update(muon)]


def evaluation(shape: Shape, layers: tuple[Normalisation, ...]) -> list[Launch]:
    """From "indices" to "loss", with the running statistics."""
    return [*batch(shape), *forward(shape, layers, train=False), *squared_error(shape, train=False)]


def size_in_bytes(shape: Shape) -> int:
    """Bytes of the buffers of training steps and of evaluations, which have buffers of their own."""
    layers = (Normalisation(0.0, 0.0),) * 3
    sizes = {name: size * np.dtype(dtype).itemsize for name, (size, dtype) in buffers(shape).items()}
    lists = (step(shape, layers), evaluation(shape, layers))
    return sum(sizes[name] for launches in lists for name in names(launches) & set(sizes))


def batch(shape: Shape) -> list[Launch]:
    """Make the pairs of the images that "indices" names: degraded "x" and original "t"."""
    tables = ("rows", "row_fractions", "columns", "column_fractions")
    arguments = ("indices", "images", *tables, "x", "t", *_size(shape), np.int64(shape.pixels))
    return [Launch("pairs", ceil_divide(shape.pixels, _WIDE), _WIDE, arguments)]


def samples(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where `degrade` samples an axis of the images, as `batch` takes it.

    A pixel of a degraded image lies between two pixels of the small image, and each of these between a pixel
    of the original and the next.

    Parameters
    ----------
    length : int
        Pixels of the axis.
    size : int
        Pixels that the axis is shrunk to.

    Returns
    -------
    starts : ndarray of int32, shape (2 * length,)
        For each pixel the first pixel of the original for the first of its two, then the same for the second.
    fractions : ndarray of float32, shape (3 * length,)
        The distances from these two, and then the distance of the pixel itself from the first of its two.
    """
    shrinking, enlarging = axis(length, size), axis(size, length)
    neighbours = np.concatenate([enlarging.first, enlarging.second])
    fractions = np.concatenate([shrinking.fraction[neighbours], enlarging.fraction])
    return shrinking.first[neighbours], fractions


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
        Whether to normalise by the batch's own statistics instead of the running ones.
    update : bool
        Whether to update the running statistics, if `train`.
    """
    tiles, size = shape.tiles(), _size(shape)
    sums = "sums" if train else None
    launches = [Launch("pack", ceil_divide(_PACKED["PACKED"], _WIDE), _WIDE, ("parameters", "packed"))]
    convolutions = [
        ("x", "packed", "a1"),
        ("a1", None, "norm1", "packed", np.int32(_PACKED["P2"]), None, None, "a2"),
        ("a2", None, "norm2", "packed", np.int32(_PACKED["P3"]), None, None, "a3"),
    ]
    for layer, arguments in enumerate(convolutions, 1):
        launches.append(Launch(f"conv{layer}", tiles, _THREADS, (*arguments, sums, *size)))
        launches.append(_normalise(shape, layer, layers[layer - 1], train, update))
    launches.append(Launch("conv4", tiles, _THREADS, ("a3", "norm3", "packed", "parameters", "y", *size)))
    return launches


def _normalise(shape: Shape, layer: int, link: Normalisation, train: bool, update: bool) -> Launch:
    average = f"average{layer}" if update or not train else None
    numbers = (np.int64(shape.pixels), np.float64(link.eps), np.float64(link.decay))
    arguments = ("sums" if train else None, np.int32(shape.tiles()), "parameters", *_gamma_beta(layer))
    channels = CHANNELS[layer - 1]
    return Launch("statistics", channels, _THREADS, (*arguments, f"norm{layer}", average, *numbers))


def squared_error(shape: Shape, train: bool = True) -> list[Launch]:
    """The mean squared error of "y" against "t": "loss" and "gz"; if `train`, also the bias's gradient."""
    return _output(shape, "t", None, "gradient" if train else None, "loss")


def sigmoid_gradient(shape: Shape) -> list[Launch]:
    """From "y" and its gradient "gy" to "gz" and the bias's gradient."""
    return _output(shape, None, "gy", "gradient", None)


def _output(shape: Shape, t: str | None, gy: str | None, *wanted: str | None) -> list[Launch]:
    blocks, total = min(ceil_divide(shape.pixels, _WIDE), _SCALAR_BLOCKS), np.int64(shape.pixels)
    sums = ("bias_sums", "loss_sums")
    return [
        Launch("output_gradient", blocks, _WIDE, ("y", t, gy, "gz", *sums, total)),
        Launch("sum_scalars", 1, _WIDE, (*sums, np.int32(blocks), *wanted, total), BESIDE),
    ]


def backward(shape: Shape, train: bool) -> list[Launch]:
    """All of "gradient" but conv4's bias, from "gz" and what `forward` left, with the same `train`.

    The chain goes from the output to the first layer. It does not need the gradients of weights; these are
    computed beside it.
    """
    tiles, size = shape.tiles(), _size(shape)

    def weights(layer: int, *arguments: str | None, order: int = BESIDE) -> list[Launch]:
        blocks = shape.tiles(_ROWS.get(layer, _TILE_H))
        threads = _WIDE if layer > 2 else _THREADS
        inputs, outputs = SHAPES[3 * layer - 3][1::-1] if layer < 4 else (1, CHANNELS[2])
        numbers = (np.int32(number) for number in (blocks, inputs, outputs))
        sums = (f"partials{layer}", *numbers, "gradient", np.int32(OFFSETS[3 * layer - 3]))
        return [
            Launch(f"conv{layer}_weights", blocks, threads, (*arguments, *size), order),
            Launch("sum_partials", ceil_divide(SIZES[3 * layer - 3], _SUMMED), _WIDE, sums, BESIDE),
        ]

    def gradient(layer: int, *arguments: str | np.int32 | None) -> Launch:
        return Launch(f"conv{layer}_gradient", tiles, _THREADS, (*arguments, "sums", *size))

    return [
        *weights(4, "gz", "a3", "norm3", "packed", "partials4", "sums", order=CHAIN),
        _bn_gradient(shape, 3, train),
        Launch("bn3_gradient", tiles, _WIDE, ("gz", "a3", "norm3", "packed", "d3", *size)),
        *weights(3, "a2", "norm2", "d3", None, None, "partials3"),
        gradient(3, "d3", None, None, "packed", np.int32(_PACKED["Q3"]), "a2", "norm2", "g2"),
        _bn_gradient(shape, 2, train),
        *weights(2, "a1", "norm1", "a2", "g2", "norm2", "partials2"),
        gradient(2, "a2", "g2", "norm2", "packed", np.int32(_PACKED["Q2"]), "a1", "norm1", "g1"),
        _bn_gradient(shape, 1, train),
        *weights(1, "x", "a1", "g1", "norm1", "partials1", order=CHAIN),
    ]


def update(muon: bool = False) -> list[Launch]:
    """Update "parameters", "m" and "v" by "gradient" and "coefficients".

    Adam updates all parameters; if `muon`, Muon the weights of the first three convolutions instead.
    """
    buffers = ("coefficients", "parameters", "gradient", "m", "v")
    by_adam = (*buffers, np.int32(muon))
    launches = [Launch("adam", ceil_divide(COUNT, _THREADS), _THREADS, by_adam, JOINED)]
    return [*launches, Launch("muon", 3, _WIDE, buffers)] if muon else launches


def _bn_gradient(shape: Shape, layer: int, train: bool) -> Launch:
    sums = ("sums", np.int32(shape.tiles()), f"norm{layer}", "gradient", *_gamma_beta(layer))
    arguments = (*sums, np.int64(shape.pixels), np.int32(train))
    return Launch("bn_gradient", CHANNELS[layer - 1], _THREADS, arguments)


def _gamma_beta(layer: int) -> tuple[np.int32, np.int32]:
    """Where gamma and beta begin in "parameters"."""
    return np.int32(OFFSETS[3 * layer - 2]), np.int32(OFFSETS[3 * layer - 1])


def _size(shape: Shape) -> tuple[np.int32, np.int32]:
    return np.int32(shape.height), np.int32(shape.width)
