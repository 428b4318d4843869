"""A pytest plugin for the tests of the GPU engine: its device is a GPU or a stand-in on the CPU."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest

import srmnist  # noqa: F401 – first: it makes Chainer import
from helpers.cuda_on_cpu.device import COMPILER, HostDevice, library
from srmnist.engine.gpu import device as devices
from srmnist.engine.gpu import function
from srmnist.system.device import select_device
from srmnist.system.errors import UserError
from srmnist.training import trainer


@functools.cache
def why_no_gpu() -> str:
    """Why the tests that need a GPU cannot run here; empty where they can."""
    try:
        select_device(0)
    except UserError as error:
        return str(error)
    return ""


@functools.cache
def _built() -> Path:
    """The folder of the kernels that are compiled for the CPU: in pytest's cache, or for this run only."""
    try:
        return _config[0].cache.mkdir("kernels")
    except (AttributeError, OSError):
        return Path(tempfile.mkdtemp(prefix="srmnist-kernels-"))


_config: list[pytest.Config] = []


def pytest_configure(config: pytest.Config) -> None:
    _config.append(config)


def host_device() -> HostDevice:
    """A stand-in that runs the kernels on the CPU."""
    if COMPILER is None:
        pytest.skip("there is no C++ compiler to run the CUDA kernels on the CPU with")
    return HostDevice(library(_built(), devices.source()))


def to_host(array) -> np.ndarray:
    """An array of either device in main memory."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def send(device, model):
    """A model's copy on the device."""
    model = model.copy(mode="copy")
    if device.xp is not np:
        model.to_device("@cupy:0")
    return model


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest):
    """Both devices, one after the other: the stand-in, and, in tests marked gpu, a GPU."""
    if request.param == "cpu":
        return host_device()
    if why_no_gpu():
        pytest.skip(why_no_gpu())
    select_device(0)
    return devices.current()


@pytest.fixture
def on_device(device, monkeypatch):
    """Let the GPU engine compute on that device, whatever arrays it is given, and training use it."""
    if device.xp is np:
        monkeypatch.setattr(devices, "current", lambda: device)
        monkeypatch.setattr("srmnist.engine._engine", lambda array: function)
        monkeypatch.setattr(trainer, "_standard_updater", trainer._resident_updater)
    return device
