"""What the tests of the GPU engine share: a machine to run it on, which is a GPU or the CPU's stand-in."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest

import srmnist  # noqa: F401 – first: it makes Chainer import
from chainer.backends import cuda
from helpers.cuda_on_cpu import machine as host


@functools.cache
def why_no_gpu() -> str:
    """Why the tests that need a GPU cannot run here; empty where they can."""
    if not cuda.available:
        return "CuPy is not installed"
    try:
        return "" if cuda.cupy.cuda.runtime.getDeviceCount() > 0 else "there is no CUDA device"
    except Exception as error:
        return f"there is no CUDA device: {error}"


_scratch = tempfile.TemporaryDirectory(prefix="srmnist-kernels-")


@functools.cache
def _built() -> Path:
    """Where the kernels are compiled for the CPU, once for all tests."""
    host.library(Path(_scratch.name))
    return Path(_scratch.name)


def host_machine() -> host.HostMachine:
    """A stand-in that runs the kernels on the CPU."""
    if host.COMPILER is None:
        pytest.skip("there is no C++ compiler to run the CUDA kernels on the CPU with")
    return host.HostMachine(_built())


def to_host(array) -> np.ndarray:
    """An array of either machine in main memory."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def send(machine, model):
    """A model's copy on the machine."""
    model = model.copy(mode="copy")
    if machine.xp is not np:
        model.to_device("@cupy:0")
    return model
