"""The exported network is the network, in another runtime."""

import subprocess
import sys

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from srmnist import onnx_export
from srmnist.system.errors import UserError

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")


@pytest.fixture
def exported(weights, tmp_path):
    assert onnx_export.export(weights, tmp_path / "model.onnx") <= 1e-5
    return tmp_path / "model.onnx"


def test_eleven_nodes_hold_the_article_s_layers(exported):
    nodes = [node.op_type for node in onnx.load(exported).graph.node]
    assert nodes == ["Conv", "BatchNormalization", "Relu"] * 3 + ["Conv", "Sigmoid"]


def test_weights_have_the_article_s_names(exported):
    names = {tensor.name for tensor in onnx.load(exported).graph.initializer}
    assert {"conv1/W", "bn1/gamma", "bn3/avg_var", "conv4/W", "conv4/b"} <= names
    assert len(names) == 5 + 3 * 4


@pytest.mark.parametrize("shape", [(1, 28, 28), (7, 28, 28), (2, 13, 40)])
def test_any_number_of_images_of_any_size_is_restored_alike(exported, weights, shape):
    batch, height, width = shape
    images = np.random.default_rng(0).random((batch, 1, height, width), np.float32)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (found,) = session.run(["restored"], {"degraded": images})
    model = srmnist.load_weights(weights, srmnist.CNNAE())
    np.testing.assert_allclose(found, srmnist.restore(images, model), atol=1e-5)


def test_model_that_restores_otherwise_is_not_written(weights, tmp_path, monkeypatch):
    """Checking is no formality: with another epsilon the export is refused."""
    build = onnx_export.build

    def wrong(model, onnx):
        proto = build(model, onnx)
        proto.graph.node[1].attribute[0].f = 0.1
        return proto

    monkeypatch.setattr(onnx_export, "build", wrong)
    with pytest.raises(UserError, match="differs from Chainer's"):
        onnx_export.export(weights, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_missing_package_gets_one_line_that_names_it(weights, tmp_path, name):
    from helpers.users import SCRIPTS, refusal

    hidden = f"import runpy, sys; sys.modules[{name!r}] = None; sys.argv = sys.argv[1:]; " + (
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", hidden, str(SCRIPTS / "export_onnx.py"), "--model", str(weights)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert refusal(done).startswith(f"{name} is not installed")
    assert not (tmp_path / "model.onnx").exists()
