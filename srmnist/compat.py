"""Chainer 7.8.1 on today's Python and NumPy.

Chainer's last release (January 2022) names a few things that have since gone. Each patch below says which
file of Chainer needs it; each is applied only where the name is missing. `srmnist/__init__.py` calls
`import_chainer` before anything else, so ``import srmnist`` must come before ``import chainer``.
"""

import importlib
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy

_BROKEN = (
    "Chainer was imported before srmnist and failed, which leaves it half loaded. "
    "Restart Python (in a notebook: restart the kernel) and write `import srmnist` before `import chainer`."
)


def import_chainer() -> types.ModuleType:
    """Import Chainer with everything it misses in place.

    Returns
    -------
    module
        ``chainer``, ready to use.

    Raises
    ------
    ImportError
        If an earlier ``import chainer`` has failed in this process.
    """
    half_loaded = any(name.startswith("chainer.") for name in sys.modules)
    if "chainer" not in sys.modules and half_loaded:
        raise ImportError(_BROKEN)
    add_numpy_names()
    with import_stand_ins(), _without_advice():
        # The article's own import line names gradient_check, which Chainer does not import by itself.
        importlib.import_module("chainer.gradient_check")
    return sys.modules["chainer"]


def add_numpy_names() -> None:
    """Give NumPy back the two names that Chainer still uses while it runs.

    ``numpy.float``, gone since NumPy 1.24, is the built-in float: ``functions/array/resize_images.py``
    computes its sampling grid with it. ``numpy.sctypes``, gone since NumPy 2.0, lists the scalar types:
    ``functions/array/as_strided.py`` reads it at import and again in backward.

    They are set on NumPy itself because Chainer compares modules by identity (``xp is numpy``), so no
    stand-in for ``numpy`` can be slipped into single files.
    """
    if "float" not in vars(numpy):
        numpy.float = float  # type: ignore[attr-defined]
    if "sctypes" not in vars(numpy):
        numpy.sctypes = {  # type: ignore[attr-defined]
            "int": [numpy.int8, numpy.int16, numpy.int32, numpy.int64],
            "uint": [numpy.uint8, numpy.uint16, numpy.uint32, numpy.uint64],
            "float": [numpy.float16, numpy.float32, numpy.float64, numpy.longdouble],
            "complex": [numpy.complex64, numpy.complex128, numpy.clongdouble],
            "others": [bool, object, bytes, str, numpy.void],
        }


@contextmanager
def import_stand_ins() -> Iterator[None]:
    """Stand in for two packages that only Chainer's import needs, and take the stand-ins away again.

    ``_environment_check.py`` imports ``pkg_resources`` (gone since setuptools 82, and before that a warning
    on the user's terminal) to look for versions of CuPy and iDeep that nobody can install any more; here
    nothing is ever found, so nothing is reported. ``testing/helper.py``, which ``gradient_check.py`` needs,
    imports it for the decorators of Chainer's own tests. ``_environment_check.py`` also imports
    ``numpy.distutils.system_info`` (gone since Python 3.12, broken by setuptools 74 before) to ask on
    macOS for NumPy's BLAS; here the answer is "unknown".

    They stand in even for real packages: a real ``pkg_resources`` warns, and it would find a CuPy 13 too
    new for Chainer. What was loaded before is put back.
    """
    system_info = types.ModuleType("numpy.distutils.system_info")
    system_info.get_info = lambda name: {}  # type: ignore[attr-defined]
    distutils = types.ModuleType("numpy.distutils")
    distutils.system_info = system_info  # type: ignore[attr-defined]
    stand_ins = {
        "pkg_resources": _pkg_resources(),
        "numpy.distutils": distutils,
        "numpy.distutils.system_info": system_info,
    }
    with _replaced(sys.modules, stand_ins), _replaced(vars(numpy), {"distutils": distutils}):
        yield


@contextmanager
def _without_advice() -> Iterator[None]:
    """Leave out three warnings about CuPy, while Chainer is being imported, that nobody can or need heed.

    Chainer says that cuDNN is not enabled and advises to install CuPy anew, which helps no more: CuPy 14 has
    no cuDNN part, and CuPy 13 warns that cuDNN is not there, which no engine needs. CuPy warns that there is
    no NCCL when ``multiprocess_parallel_updater.py`` asks for it; only a run on several GPUs needs NCCL.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "cuDNN is not enabled", UserWarning)
        warnings.filterwarnings("ignore", r"\s*(nccl|cudnn) library could not be loaded", UserWarning)
        yield


@contextmanager
def _replaced(names: dict[str, Any], values: dict[str, Any]) -> Iterator[None]:
    before = {name: names[name] for name in values if name in names}
    names.update(values)
    try:
        yield
    finally:
        for name in values:
            names.pop(name, None)
        names.update(before)


def _pkg_resources() -> types.ModuleType:
    module = types.ModuleType("pkg_resources")

    class ResolutionError(Exception):
        pass

    class DistributionNotFound(ResolutionError):
        pass

    class VersionConflict(ResolutionError):
        pass

    def require(*requirements: str) -> None:
        raise DistributionNotFound(*requirements)

    module.ResolutionError = ResolutionError  # type: ignore[attr-defined]
    module.DistributionNotFound = DistributionNotFound  # type: ignore[attr-defined]
    module.VersionConflict = VersionConflict  # type: ignore[attr-defined]
    module.require = require  # type: ignore[attr-defined]
    return module
