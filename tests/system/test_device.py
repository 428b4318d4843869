"""`--gpu` names a device that is there, or the user is told what is missing."""

import importlib.util
from types import SimpleNamespace

import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
import chainer
from chainer.backends import cuda
from conftest import run_python
from helpers.gpu_engine import why_no_gpu
from srmnist.system.device import device_errors, select_device
from srmnist.soak.small_runs import train_command
from helpers.users import TRAIN, refusal, run

with_cupy = pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")


class FakeRuntime:
    """CUDA's runtime as CuPy shows it, on a machine with some number of GPUs."""

    class CUDARuntimeError(RuntimeError):
        pass

    def __init__(self, count: int, error: str) -> None:
        self.count, self.error = count, error

    def getDeviceCount(self) -> int:
        if self.error:
            raise self.CUDARuntimeError(self.error)
        return self.count

    def runtimeGetVersion(self) -> int:
        return 13050


class OutOfMemoryError(MemoryError):
    pass


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that there are so many GPUs, and a CuPy of a version."""

    def install(count: int = 1, version: str = "14.2.0", error: str = "") -> None:
        fake = SimpleNamespace(
            runtime=FakeRuntime(count, error),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            driver=SimpleNamespace(CUDADriverError=type("CUDADriverError", (RuntimeError,), {})),
        )
        monkeypatch.setattr(cuda, "available", True)
        monkeypatch.setattr(cuda, "cupy", SimpleNamespace(cuda=fake, __version__=version))

    return install


def refused(gpu: int) -> str:
    """The one line with which a device is refused."""
    with pytest.raises(srmnist.UserError) as refusal:
        select_device(gpu)
    (line,) = str(refusal.value).splitlines()
    return line


def test_negative_number_is_the_cpu():
    assert select_device(-1).name == "@numpy"


def test_without_cupy_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cuda, "available", False)
    reason = ModuleNotFoundError("No module named 'cupy'", name="cupy")
    monkeypatch.setattr(cuda, "_resolution_error", reason, raising=False)
    assert refused(0).startswith(
        "--gpu 0: CuPy is not installed; install it with: pip install 'cupy-cuda13x[ctk]'"
    )


def test_cupy_that_cannot_be_loaded_is_told_with_its_reason(monkeypatch):
    monkeypatch.setattr(cuda, "available", False)
    reason = ImportError("\n================\nFailed to import CuPy.\n\nMuch advice.\n")  # as CuPy raises it
    reason.__cause__ = ImportError("libcublas.so.12: cannot open shared object file")
    monkeypatch.setattr(cuda, "_resolution_error", reason, raising=False)
    line = refused(0)
    assert "CuPy cannot be loaded (libcublas.so.12: cannot open shared object file); install" in line


def test_cupy_that_is_too_old_is_refused_by_its_version(gpus):
    gpus(version="9.6.0")
    assert refused(0).startswith("--gpu 0: CuPy 9.6.0 is too old; install it with")


def test_without_a_driver_the_message_says_where_to_look(gpus):
    gpus(error="cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version")
    line = refused(0)
    assert line.startswith("--gpu 0: no NVIDIA driver, or one too old for CuPy 14.2.0 and its CUDA 13;")
    assert "nvidia-smi" in line
    assert "cupy-cuda12x[ctk]" in line


def test_cuda_that_does_not_answer_is_told_in_its_words(gpus):
    gpus(error="cudaErrorNoDevice: no CUDA-capable device is detected")
    line = refused(0)
    assert line.startswith(
        "--gpu 0: CUDA does not answer (cudaErrorNoDevice: no CUDA-capable device is detected)"
    )


def test_number_that_no_gpu_has_is_refused(gpus):
    gpus(2)
    assert refused(2) == "--gpu 2: no such GPU; this computer has 2, numbered from 0"


@pytest.mark.parametrize("kind", ["allocation", "runtime"])
def test_out_of_memory_says_how_much_is_needed_and_what_helps(gpus, kind):
    gpus()
    error = OutOfMemoryError("Out of memory allocating 1,024 bytes (allocated so far: 512 bytes).")
    if kind == "runtime":
        error = FakeRuntime.CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
    with pytest.raises(srmnist.UserError) as refusal, device_errors(0, needed=3 * 2**30):
        raise error
    line = str(refusal.value)
    assert line.startswith("--gpu 0: out of the device's memory (")
    assert line.endswith("; about 3,072 MiB are needed; a smaller --batchsize needs less")


def test_out_of_memory_without_training_speaks_of_no_batchsize(gpus):
    gpus()
    with pytest.raises(srmnist.UserError, match=r"nvidia-smi shows who else uses it$"), device_errors(0):
        raise OutOfMemoryError("Out of memory allocating 1,024 bytes")


def test_a_failing_device_is_named(gpus):
    gpus()
    with (
        pytest.raises(srmnist.UserError, match=r"--gpu 0: CUDA failed \(cudaErrorIllegalAddress"),
        device_errors(0),
    ):
        raise FakeRuntime.CUDARuntimeError("cudaErrorIllegalAddress: an illegal access")


@pytest.mark.parametrize("name", ["CompileException", "NVRTCError", "CUBLASError"])
def test_failure_of_the_compiler_or_of_cublas_gets_one_line(gpus, name):
    gpus()
    error = type(name, (Exception,), {})
    with pytest.raises(srmnist.UserError) as refusal, device_errors(0):
        raise error("common.cuh(5): error: identifier is undefined\n\nand a page of source")
    assert str(refusal.value).startswith(
        "--gpu 0: CuPy cannot compute (common.cuh(5): error: identifier is undefined); install"
    )
    with pytest.raises(KeyError), device_errors(0):  # of the program, not of the device
        raise KeyError


@pytest.mark.parametrize("fails", ["sum", "product", None])
def test_gpu_is_tried_out_with_a_kernel_and_a_matrix_product(gpus, monkeypatch, fails):
    class Array:
        def __add__(self, other):
            return self.unless("sum")

        __matmul__ = sum = lambda self, other=None: self.unless("product")

        def unless(self, operation):
            if fails == operation:
                raise RuntimeError("CUBLAS_STATUS_NOT_INITIALIZED")
            return self

        def __float__(self):
            return 16.0

    gpus()
    cuda.cupy.ones = lambda *arguments: Array()
    cuda.cupy.cuda.compiler = SimpleNamespace(CompileException=KeyError)
    monkeypatch.setattr(chainer, "get_device", lambda name: SimpleNamespace(use=lambda: None))
    if fails is None:
        select_device(0)
    else:
        assert "CuPy 14.2.0 cannot compute (CUBLAS_STATUS_NOT_INITIALIZED); install it with" in refused(0)


def test_errors_of_the_cpu_are_left_alone():
    with pytest.raises(MemoryError), device_errors(-1):
        raise MemoryError


@with_cupy
@pytest.mark.parametrize(
    "statement", ["import srmnist", "import srmnist, chainer", "import srmnist, chainermn"]
)
def test_with_cupy_the_imports_say_nothing(statement):
    done = run_python("-c", statement)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@with_cupy
def test_other_warnings_are_still_seen():
    done = run_python("-c", "import srmnist, warnings\nwarnings.warn('cuDNN is not enabled here')")
    assert "cuDNN is not enabled here" in done.stderr


@with_cupy
def test_with_cupy_and_no_driver_training_on_the_cpu_works_and_on_a_gpu_is_refused(small_mnist, tmp_path):
    if not why_no_gpu():
        pytest.skip("there is a GPU")
    command = train_command(TRAIN, small_mnist, "--epoch", 1, "--out", tmp_path / "out")
    done = run(command)
    assert (done.returncode, done.stderr) == (0, "")
    before = sorted(tmp_path.rglob("*"))
    line = refusal(run([*command, "--gpu", "0", "--resume"]))
    assert line.startswith("--gpu 0: ")
    assert sorted(tmp_path.rglob("*")) == before
