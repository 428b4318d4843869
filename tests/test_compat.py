"""Chainer 7.8.1 imports and runs, and the user's process is otherwise left alone."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import srmnist  # noqa: F401 – what is tested here is that this has happened
from conftest import run_python
from helpers.users import SCRIPTS, refusal


def python(code: str, *flags: str, cwd: Path | None = None) -> str:
    """Run a program in a fresh process; it must end well and say nothing on stderr."""
    done = run_python(*flags, "-c", code, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_article_s_imports_work_word_for_word():
    python(
        "import srmnist\n"
        "import cv2\n"
        "import numpy as np\n"
        "import chainer\n"
        "from chainer.backends import cuda\n"
        "from chainer import Function, gradient_check, report, training, utils, Variable\n"
        "from chainer import datasets, iterators, optimizers, serializers\n"
        "from chainer import Link, Chain, ChainList\n"
        "import chainer.functions as F\n"
        "import chainer.links as L\n"
        "from chainer.training import extensions\n"
    )


@pytest.mark.parametrize("statement", ["import srmnist.CNNAE", "from srmnist import CNNAE", "import srmnist"])
def test_model_is_found_by_a_process_s_first_statement(statement):
    name = "CNNAE" if statement.startswith("from") else "srmnist.CNNAE"
    assert python(f"{statement}\nprint({name}().count_params())") == "23985\n"


def test_import_costs_only_what_is_used():
    python(
        "import sys, srmnist\n"
        "assert {'chainer', 'numpy', 'matplotlib', 'cv2'}.isdisjoint(sys.modules)\n"
        "from srmnist import CNNAE, UserError, degrade, load_dataset, load_mnist, load_weights, restore\n"
        "assert 'chainer' in sys.modules\n"
        "assert {'matplotlib', 'cv2', 'pytest', 'scipy.io', 'scipy.linalg'}.isdisjoint(sys.modules)\n"
        "assert set(srmnist.__all__) <= set(dir(srmnist))\n"
        "assert srmnist.show_grid.__module__ == 'srmnist.figures'\n"
        "assert srmnist.data.load_mnist is load_mnist\n"
        "assert not hasattr(srmnist, 'no_such_name')\n"
    )


def test_chainer_s_uses_of_scipy_work_when_they_come():
    python(
        "import numpy as np\n"
        "import srmnist\n"
        "import chainer.functions as F\n"
        "from chainer import distributions\n"
        "from chainer.datasets import svhn\n"
        "assert abs(F.erfinv(np.array([0.5])).array[0] - 0.47693628) < 1e-6\n"
        "matrix = np.eye(2, dtype=np.float32)[None]\n"
        "normal = distributions.MultivariateNormal(loc=np.zeros((1, 2), np.float32), scale_tril=matrix)\n"
        "assert normal.log_prob(np.ones((1, 2), np.float32)).array < 0\n"
        "import scipy.io\n"
        "assert svhn.io.loadmat is scipy.io.loadmat\n"
    )


@pytest.mark.parametrize("package", ["cupy", "ideep4py"])
def test_packages_that_chainer_imports_find_the_real_scipy(package, tmp_path):
    """CuPy reads names of scipy.linalg when it is imported; other packages may."""
    submodule = "from scipy.linalg import blas\n" if package == "cupy" else ""
    (tmp_path / f"{package}.py").write_text(f"import scipy.linalg\n{submodule}found = scipy.linalg.det\n")
    python(
        "import srmnist, chainer, sys\n"
        f"assert {package!r} in sys.modules\n"
        f"import scipy.linalg, {package}\n"
        f"assert {package}.found is scipy.linalg.det\n",
        cwd=tmp_path,
    )


def test_patches_leave_no_trace_and_the_user_s_packages_alone(tmp_path):
    (tmp_path / "pkg_resources.py").write_text("owner = 'user'\n")
    python(
        "import sys, types, numpy\n"
        "import srmnist\n"
        "import chainer.gradient_check\n"
        "gone = ['pkg_resources', 'numpy.distutils', 'numpy.distutils.system_info', 'scipy.io']\n"
        "assert not set(gone) & set(sys.modules), set(gone) & set(sys.modules)\n"
        "assert 'distutils' not in vars(numpy)\n"
        "assert 'srmnist' not in type(chainer.__loader__).__module__\n"
        "import pkg_resources\n"
        "assert pkg_resources.owner == 'user'\n",
        cwd=tmp_path,
    )


def test_what_the_user_s_process_had_before_is_kept(tmp_path):
    (tmp_path / "pkg_resources.py").write_text("owner = 'user'\n")
    python(
        "import sys, types, numpy, pkg_resources\n"
        "class Mine(float): pass\n"
        "numpy.float = Mine\n"
        "before = vars(numpy).get('sctypes')\n"
        "numpy.distutils = sys.modules['numpy.distutils'] = types.ModuleType('numpy.distutils')\n"
        "distutils = numpy.distutils\n"
        "import srmnist, chainer\n"
        "assert sys.modules['pkg_resources'] is pkg_resources\n"
        "assert sys.modules['numpy.distutils'] is numpy.distutils is distutils\n"
        "assert numpy.float is Mine\n"
        "assert before is None or numpy.sctypes is before\n"
        "chainer.global_config.plain = True\n"
        "srmnist.CNNAE()\n"
        "assert chainer.config.plain is True\n",
        cwd=tmp_path,
    )


def test_numpy_names_are_what_they_were():
    assert np.float is float  # noqa: NPY001
    for kind, name in (("int", "i"), ("uint", "u"), ("float", "f"), ("complex", "c")):
        types = np.sctypes[kind]  # noqa: NPY201
        assert {np.dtype(scalar).kind for scalar in types} == {name}
        assert [np.dtype(scalar).itemsize for scalar in types] == sorted(
            np.dtype(scalar).itemsize for scalar in types
        )


def test_chainer_imported_first_and_broken_is_explained():
    done = run_python(
        "-c",
        "import sys\n"
        "sys.modules['pkg_resources'] = None\n"  # broken on any stack
        "try:\n    import chainer\n"
        "except Exception:\n    del sys.modules['pkg_resources']\n"
        "import srmnist\n",
    )
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert "Restart Python" in message
    assert "`import srmnist` before `import chainer`" in message


def test_import_and_training_pass_with_warnings_as_errors(small_mnist, tmp_path):
    python(
        "import warnings\n"
        # Chainer's own: its Adam reads a property that Chainer itself has deprecated.
        "warnings.filterwarnings('ignore', 'Adam.lr has been renamed', DeprecationWarning)\n"
        # An old matplotlib with a new pyparsing.
        "warnings.filterwarnings('ignore', '.*deprecated', DeprecationWarning, 'matplotlib')\n"
        "from pathlib import Path\n"
        "from srmnist.training.settings import Settings\n"
        "from srmnist.training.train import train\n"
        f"train(Settings(epoch=1, data={str(small_mnist)!r}), Path('out'))\n",
        "-W",
        "error",
        cwd=tmp_path,
    )


@pytest.mark.parametrize(
    "method",
    [
        "spawn",
        pytest.param(
            "forkserver",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows has no forkserver"),
        ),
    ],
)
def test_worker_processes_import_chainer_themselves(method, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import srmnist\n"
        "import multiprocessing\n"
        "import chainer.functions as F\n"
        "import numpy as np\n"
        "def shrink(images):\n"
        "    return F.resize_images(images, (10, 10)).shape\n"
        "if __name__ == '__main__':\n"
        f"    with multiprocessing.get_context({method!r}).Pool(1) as pool:\n"
        "        print(pool.apply(shrink, (np.zeros((2, 1, 28, 28), np.float32),)))\n"
    )
    done = run_python(program, cwd=tmp_path)
    assert done.stdout == "(2, 1, 10, 10)\n", done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(("variable", "value"), [("CHAINER_DTYPE", "half"), ("CHAINER_DEBUG", "yes")])
def test_environment_variable_that_chainer_refuses_is_named_in_one_line(variable, value, tmp_path):
    environment = {**os.environ, variable: value}
    done = run_python(SCRIPTS / "restore.py", "none.png", cwd=tmp_path, env=environment)
    assert refusal(done).startswith(f"environment variable {variable}: ")
