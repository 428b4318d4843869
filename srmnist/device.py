"""The device that a ``--gpu`` flag names."""

import chainer
from chainer.backends import cuda

from srmnist.errors import UserError

_INSTALL = "install it with: pip install 'cupy-cuda13x[ctk]' (or cupy-cuda12x[ctk], as your driver allows)"


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
        raise UserError(f"--gpu {gpu}: CuPy is not installed or cannot be loaded; {_INSTALL}")
    runtime = cuda.cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise UserError(f"--gpu {gpu}: CUDA does not answer ({error}); does nvidia-smi?") from error
    if gpu >= count:
        raise UserError(f"--gpu {gpu}: no such GPU; this machine has {count}, numbered from 0")
    # CuPy 14 has no cuDNN part any more, and Chainer would advise to install CuPy again with cuDNN.
    cuda.check_cuda_available._already_warned = True
    device = chainer.get_device(f"@cupy:{gpu}")
    device.use()
    return device
