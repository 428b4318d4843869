"""`--gpu` names a device that is there, or the user is told what is missing."""

from types import SimpleNamespace

import pytest

import srmnist
from chainer.backends import cuda
from srmnist.device import select_device


class FakeRuntime:
    """CUDA's runtime as CuPy shows it, on a machine with some number of GPUs."""

    class CUDARuntimeError(RuntimeError):
        pass

    def __init__(self, count: int) -> None:
        self.count = count

    def getDeviceCount(self) -> int:
        if self.count == 0:
            raise self.CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return self.count


@pytest.fixture
def gpus(monkeypatch):
    def install(count: int) -> None:
        monkeypatch.setattr(cuda, "available", True)
        monkeypatch.setattr(cuda, "cupy", SimpleNamespace(cuda=SimpleNamespace(runtime=FakeRuntime(count))))

    return install


def test_negative_number_is_the_cpu():
    assert select_device(-1).name == "@numpy"


def test_without_cupy_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cuda, "available", False)
    with pytest.raises(srmnist.UserError, match=r"--gpu 0: CuPy .* pip install 'cupy-cuda13x"):
        select_device(0)


def test_without_a_driver_the_message_says_where_to_look(gpus):
    gpus(0)
    with pytest.raises(srmnist.UserError, match=r"--gpu 0: CUDA does not answer .*nvidia-smi"):
        select_device(0)


def test_number_that_no_gpu_has_is_refused(gpus):
    gpus(2)
    with pytest.raises(srmnist.UserError, match="--gpu 2: no such GPU; this machine has 2, numbered from 0"):
        select_device(2)
