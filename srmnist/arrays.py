"""The type of what stays where it is: NumPy arrays in, NumPy arrays out, and the same for CuPy's."""

from typing import TypeVar

from chainer.types import NdArray

Array = TypeVar("Array", bound=NdArray)
