"""The device that a ``--gpu`` flag names."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import chainer
from chainer.backends import cuda

from srmnist.system.errors import UserError, first_line

_OLDEST_CUPY = 13  # older versions do not run on today's NumPy and GPUs
_INSTALL = "install it with: pip install 'cupy-cuda13x[ctk]' (or cupy-cuda12x[ctk], as your driver allows)"
# Errors of CuPy's compiler and matrix products. Their modules differ between CuPy's versions.
_LIBRARY_ERRORS = ("CompileException", "NVRTCError", "CUBLASError")
_DRIVER = "nvidia-smi shows the driver and the newest CUDA that it allows"


def select_device(gpu: int = -1) -> chainer.backend.Device:
    """The CPU, or a CUDA device made current.

    Parameters
    ----------
    gpu : int
        CUDA device number; negative means the CPU.

    Raises
    ------
    UserError
        If CuPy or its driver is missing or too old, if there is no such device, or if it cannot compute.
    """
    if gpu < 0:
        return chainer.get_device("@numpy")
    if not cuda.available:
        raise UserError(f"--gpu {gpu}: {_missing()}; {_INSTALL}")
    version = cuda.cupy.__version__
    if int(version.partition(".")[0]) < _OLDEST_CUPY:
        raise UserError(f"--gpu {gpu}: CuPy {version} is too old; {_INSTALL}")
    runtime = cuda.cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        if "InsufficientDriver" in str(error):
            built = f"CuPy {version} and its CUDA {runtime.runtimeGetVersion() // 1000}"
            raise UserError(
                f"--gpu {gpu}: no NVIDIA driver, or one too old for {built}; {_DRIVER}, "
                "and there is a CuPy for each (cupy-cuda12x[ctk], cupy-cuda13x[ctk])"
            ) from error
        raise UserError(f"--gpu {gpu}: CUDA does not answer ({first_line(error)}); {_DRIVER}") from error
    if gpu >= count:
        raise UserError(f"--gpu {gpu}: no such GPU; this computer has {count}, numbered from 0")
    with device_errors(gpu):
        device = chainer.get_device(f"@cupy:{gpu}")
        device.use()
        _try_out(version, gpu)
    return device


def device_number(device: chainer.backend.Device) -> int:
    """The number of a device, as ``--gpu`` takes it: negative for the CPU."""
    return device.device.id if isinstance(device, chainer.backend.GpuDevice) else -1


@contextmanager
def device_errors(gpu: int, needed: int = 0) -> Iterator[None]:
    """Turn errors of a CUDA device into `UserError`.

    Parameters
    ----------
    gpu : int
        CUDA device number; negative leaves all errors as they are.
    needed : int
        Bytes of the device's memory that training needs, roughly; 0 for other work.

    Raises
    ------
    UserError
        If the device is out of memory, or if a call of CUDA, of its compiler or of cuBLAS fails.
    """
    if gpu < 0:
        yield
        return
    cupy = cuda.cupy
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise UserError(_out_of_memory(gpu, error, needed)) from error
    except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
        if "OutOfMemory" in str(error) or "OUT_OF_MEMORY" in str(error) or "MemoryAllocation" in str(error):
            raise UserError(_out_of_memory(gpu, error, needed)) from error
        raise UserError(f"--gpu {gpu}: CUDA failed ({first_line(error)}); {_DRIVER}") from error
    except Exception as error:
        if type(error).__name__ not in _LIBRARY_ERRORS:
            raise
        raise UserError(f"--gpu {gpu}: CuPy cannot compute ({first_line(error)}); {_INSTALL}") from error


def _missing() -> str:
    """The reason why Chainer has no CuPy."""
    reason = cuda._resolution_error
    if isinstance(reason, ModuleNotFoundError) and reason.name == "cupy":
        return "CuPy is not installed"
    # CuPy's own ImportError is a page of advice. Its cause says what is wrong.
    return f"CuPy cannot be loaded ({first_line(reason.__cause__ or reason)})"


def _try_out(version: str, gpu: int) -> None:
    """Run a small kernel and a matrix product: a missing library is found now, not in the middle of a run."""
    cupy = cuda.cupy
    try:
        ones = cupy.ones((2, 2), "float32")
        if float((ones @ (ones + ones)).sum()) == 16:
            return
        problem = "a product of two small matrices is wrong"
    except (cupy.cuda.compiler.CompileException, ImportError, OSError) as error:
        problem = first_line(error)
    except RuntimeError as error:
        if isinstance(error, (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError)):
            raise
        problem = first_line(error)
    raise UserError(f"--gpu {gpu}: CuPy {version} cannot compute ({problem}); {_INSTALL}")


def _out_of_memory(gpu: int, error: Exception, needed: int) -> str:
    problem = f"--gpu {gpu}: out of the device's memory ({first_line(error)})"
    if not needed:
        return f"{problem}; nvidia-smi shows who else uses it"
    return f"{problem}; about {math.ceil(needed / 2**20):,} MiB are needed; a smaller --batchsize needs less"
