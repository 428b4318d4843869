"""Chainer 7.8.1 on today's Python and NumPy.

Chainer's last release (January 2022) uses a few names that Python, NumPy and setuptools have removed since.
Each patch below says which file of Chainer needs it; a patch is applied only where the name is missing.
`srmnist/__init__.py` calls `prepare_chainer` before anything else, so ``import srmnist`` must come before
``import chainer``. Chainer itself is imported when it is first needed: that takes a second.
"""

import importlib
import importlib.util
import os
import sys
import types
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

from srmnist.system.errors import UserError, first_line

_BROKEN = (
    "Chainer was imported before srmnist and failed, which leaves it half loaded. "
    "Restart Python (in a notebook: restart the kernel) and write `import srmnist` before `import chainer`."
)

# Parts of SciPy that files of Chainer import (datasets/svhn.py, distributions/multivariate_normal.py,
# functions/math/erfinv.py and sparse_matmul.py) and that CNNAE never uses. They take half a second.
_UNUSED = ("scipy.io", "scipy.linalg", "scipy.sparse", "scipy.special")


def prepare_chainer() -> None:
    """Make ``import chainer`` work, for the rest of this process.

    Raises
    ------
    ImportError
        If an earlier ``import chainer`` has failed in this process.
    """
    half_loaded = any(name.startswith("chainer.") for name in sys.modules)
    if "chainer" not in sys.modules and half_loaded:
        raise ImportError(_BROKEN)
    if not any(isinstance(finder, _ChainerFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ChainerFinder())


class _ChainerFinder(MetaPathFinder):
    """Finds ``chainer`` and ``chainer.testing`` as Python does, and gives them `_PatchingLoader`.

    ``chainer.testing`` is imported later than ``chainer``: by ``gradient_check``, which the article's import
    line names. If pytest is installed, ``chainer.testing`` imports it, which takes half a second.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in ("chainer", "chainer.testing"):
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _PatchingLoader(spec.loader)
        return spec


class _PatchingLoader(Loader):
    """Imports a module while all patches that it needs are applied."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        # The module keeps its own loader, which knows its source and its data files.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        add_numpy_names()
        try:
            with import_stand_ins(), _without_advice():
                self._loader.exec_module(module)
        except (TypeError, ValueError) as error:  # what Chainer's reading of its environment variables raises
            names = ", ".join(sorted(name for name in os.environ if name.startswith("CHAINER_")))
            if not names:
                raise
            raise UserError(f"environment variable {names}: {first_line(error)}") from error


def add_numpy_names() -> None:
    """Add to NumPy the two names that it has removed and that Chainer still uses after its import.

    ``numpy.float``, gone since NumPy 1.24, is the built-in float: ``functions/array/resize_images.py``
    computes its sampling grid with it. ``numpy.sctypes``, gone since NumPy 2.0, lists the scalar types:
    ``functions/array/as_strided.py`` reads it at import and again in backward.

    They are set on NumPy itself, because Chainer compares modules by identity (``xp is numpy``): a stand-in
    for ``numpy`` in single files would not be equal.
    """
    import numpy  # takes 0.2 s

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
    """Replace packages that Chainer imports and CNNAE does not use; afterwards put back what was there.

    ``_environment_check.py`` imports ``pkg_resources`` (removed from setuptools 82; older ones warn on the
    user's terminal) to look for versions of CuPy and iDeep that nobody can install any more. The stand-in
    finds no package, so Chainer reports nothing. ``testing/helper.py`` imports it for the decorators of
    Chainer's own tests. ``_environment_check.py`` also imports ``numpy.distutils.system_info`` (removed in
    Python 3.12, broken by setuptools 74) to ask on macOS for NumPy's BLAS. The stand-in answers "unknown".
    Both stand in for real packages, too: a real ``pkg_resources`` would find a CuPy that is too new for
    Chainer.

    A stand-in for a part of SciPy imports that part as soon as it is used. Where CuPy is installed, SciPy has
    none: CuPy, which Chainer imports, uses all of these parts at once.
    """
    import numpy

    system_info = types.ModuleType("numpy.distutils.system_info")
    system_info.get_info = lambda name: {}  # type: ignore[attr-defined]
    distutils = types.ModuleType("numpy.distutils")
    distutils.system_info = system_info  # type: ignore[attr-defined]
    stand_ins = {
        "pkg_resources": _pkg_resources(),
        "numpy.distutils": distutils,
        "numpy.distutils.system_info": system_info,
    }
    if importlib.util.find_spec("scipy") and not importlib.util.find_spec("cupy"):
        stand_ins.update({name: _on_demand(name) for name in _UNUSED if name not in sys.modules})
    with _replaced(sys.modules, stand_ins), _replaced(vars(numpy), {"distutils": distutils}):
        yield


def _on_demand(name: str) -> types.ModuleType:
    """A stand-in for a module: the real module is imported when one of its names is first used."""
    module = types.ModuleType(name)

    def of_real_module(attribute: str) -> Any:
        if sys.modules.get(name) is module:
            del sys.modules[name]  # or the import would find the stand-in
        return getattr(importlib.import_module(name), attribute)

    module.__getattr__ = of_real_module  # type: ignore[method-assign]
    return module


@contextmanager
def _without_advice() -> Iterator[None]:
    """Hide three warnings about CuPy while Chainer is imported, because users cannot act on them.

    Chainer warns that cuDNN is not enabled and advises to reinstall CuPy. That does not help: CuPy 14 has no
    cuDNN part, and CuPy 13 warns if cuDNN is missing. No engine needs it. CuPy warns that NCCL is missing
    when ``multiprocess_parallel_updater.py`` asks for it. Only a run on several GPUs needs NCCL.
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
        for name, value in values.items():
            if names.get(name) is value:
                del names[name]
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
