"""Arrays in the layouts that the compiled functions read, and gradients in the layouts of the weights."""

from __future__ import annotations

import numpy as np

from srmnist.engine.cpu import passes
from srmnist.engine.cpu.geometry import POSITIONS
from srmnist.engine.cpu.products import panel_width


def for_numba(array: np.ndarray) -> np.ndarray:
    """The array, or a copy, as Numba has compiled for: contiguous, aligned, writable.

    Numba compiles a function anew for arrays of another kind, such as read-only ones.
    """
    return np.require(array, np.float32, ["C", "A", "W"])


def taps(w: np.ndarray) -> np.ndarray:
    """Weights of a convolution from or to one channel, (C, 1, 3, 3) or (1, C, 3, 3), as (9, C)."""
    return np.ascontiguousarray(w.reshape(-1, 9).T)


def flipped_taps(w: np.ndarray) -> np.ndarray:
    """The same with the taps in reverse order: the weights of the gradient's convolution."""
    return np.ascontiguousarray(taps(w)[::-1])


def transformed(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Winograd's transform of weights (outputs, inputs, 3, 3), and the same transposed, both flat.

    They are (36, panels, inputs, panel width) for the convolution and (36, panels, outputs, panel width) for
    its gradient: `products.panel_width` columns of a matrix lie together.
    """
    u = _transform(w)
    return _in_panels(u.swapaxes(1, 2)), _in_panels(u)


def transformed_forward(w: np.ndarray) -> np.ndarray:
    """The first of `transformed`."""
    return _in_panels(_transform(w).swapaxes(1, 2))


def _transform(w: np.ndarray) -> np.ndarray:
    """Winograd's transform of weights (outputs, inputs, 3, 3): (36, outputs, inputs)."""
    u = np.empty((POSITIONS, *w.shape[:2]), np.float32)
    passes.transform_weights(for_numba(w).reshape(-1, 9), u.reshape(POSITIONS, -1))
    return u


def _in_panels(matrices: np.ndarray) -> np.ndarray:
    """(36, rows, columns) → (36, panels, rows, panel width), flat."""
    _, rows, columns = matrices.shape
    return matrices.reshape(POSITIONS, rows, -1, panel_width(columns)).swapaxes(1, 2).ravel()


def weight_gradient(du: np.ndarray, inputs: int, outputs: int) -> np.ndarray:
    """The gradient of weights (outputs, inputs, 3, 3).

    `du` (slices, 36, inputs · outputs) are the gradients of their transform, a sum for each slice of the
    batch. They are overwritten.
    """
    dw = np.empty((9, inputs * outputs), np.float32)
    passes.transform_weight_gradient(du, dw)
    width = panel_width(outputs)
    panels = dw.reshape(9, outputs // width, inputs, width)
    return panels.transpose(1, 3, 2, 0).reshape(outputs, inputs, 3, 3)
