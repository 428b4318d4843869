"""The device that a ``--gpu`` flag names."""

import chainer
from chainer.backends import cuda

from srmnist.errors import UserError

_INSTALL = "install it with: pip install 'srmnist[cuda13]' (or cuda12, whichever your driver supports)"


def select_device(gpu: int = -1) -> chainer.backend.Device:
    """The CPU, or a CUDA device made current.

    Parameters
    ----------
    gpu : int
        CUDA device number; negative means the CPU.

    Raises
    ------
    UserError
        If there is no CuPy, no driver, or no such device.
    """
    if gpu < 0:
        return chainer.get_device("@numpy")
    if not cuda.available:
        raise UserError(f"--gpu {gpu}: CuPy is not installed; {_INSTALL}")
    try:
        count = cuda.cupy.cuda.runtime.getDeviceCount()
    except cuda.cupy.cuda.runtime.CUDARuntimeError as error:
        raise UserError(f"--gpu {gpu}: CUDA does not answer ({error}); check the driver with nvidia-smi") from error
    if gpu >= count:
        raise UserError(f"--gpu {gpu}: no such GPU; this machine has {count}, numbered from 0")
    device = chainer.get_device(f"@cupy:{gpu}")
    device.use()
    return device
