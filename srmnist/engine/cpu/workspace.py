"""A thread's scratch memory, divided into the arrays of a pass."""

from typing import NamedTuple

import numpy as np
from numba import njit

from srmnist.engine.cpu import kernels
from srmnist.engine.cpu.geometry import evaluation_sizes, shape_of, training_sizes


@njit
def as_shape(memory, shape):
    """The first floats of flat memory, in this shape."""
    size = 1
    for length in shape:
        size *= length
    return memory[:size].reshape(shape)


@njit
def as_block(memory, shape):
    """The same, as a view: blocks are views of images, and the kernels are compiled for one kind of array."""
    return as_shape(memory, shape)[:, :, :]


@njit
def zeros(memory, shape):
    """Zeros in this shape."""
    array = as_shape(memory, shape)
    array[:] = 0
    return array


class Scratch(NamedTuple):
    """A thread's scratch memory in training, divided as in `geometry.training_sizes`. All is flat."""

    padded: np.ndarray
    gradient: np.ndarray
    one_channel: np.ndarray
    image: np.ndarray
    tiles: kernels.Tiles


@njit
def divide(scratch, area):
    """Divide the scratch memory for a block."""
    height, width = shape_of(area)
    padded, gradient, channel, image = training_sizes(height, width)
    end1, end2 = padded, padded + gradient
    end3, end4 = end2 + channel, end2 + channel + image
    return Scratch(
        scratch[:end1],
        scratch[end1:end2],
        scratch[end2:end3],
        scratch[end3:end4],
        kernels.divide_band(scratch[end4:], height, width),
    )


class Windows(NamedTuple):
    """A thread's scratch memory in evaluation, divided as in `geometry.evaluation_sizes`. All is flat."""

    padded1: np.ndarray
    padded2: np.ndarray
    padded3: np.ndarray
    output: np.ndarray
    gathered: np.ndarray
    tiles: kernels.Tiles


@njit
def divide_windows(scratch, height, width):
    """Divide the scratch memory for a block with its halo."""
    size1, size2, size3, output, gathered = evaluation_sizes(height, width)
    end1, end2, end3 = size1, size1 + size2, size1 + size2 + size3
    end4, end5 = end3 + output, end3 + output + gathered
    return Windows(
        scratch[:end1],
        scratch[end1:end2],
        scratch[end2:end3],
        scratch[end3:end4],
        scratch[end4:end5],
        kernels.divide_band(scratch[end5:], height, width),
    )
