"""Export to ONNX: the trained network for runtimes other than Chainer."""

from pathlib import Path
from types import ModuleType
from typing import Any

import chainer
import numpy as np

from srmnist.data import embedded_mnist, to_float
from srmnist.degradation import degrade
from srmnist.model import CNNAE
from srmnist.restoration import load_model, restore
from srmnist.system.errors import UserError
from srmnist.system.files import write_all

# Runtimes refuse opsets and file formats (IR) that are newer than they are. Opset 15 is the last that changed
# one of the four operators (BatchNormalization) for float32; IR 8 is the format that came with it.
OPSET, _IR_VERSION = 15, 8

_IMAGES = 256
_TOLERANCE = 1e-5


def export(model_file: Path, onnx_file: Path) -> float:
    """Write trained weights as an ONNX model, if it restores test images as Chainer does.

    Parameters
    ----------
    model_file : Path
        Weights of `CNNAE`, Chainer's npz.
    onnx_file : Path
        The file to write; its directory is made if it does not exist. The input of its model is ``degraded``
        and its output ``restored``, both float32 (batch, 1, height, width), of any batch, height and width.

    Returns
    -------
    float
        The largest difference between onnxruntime's and Chainer's output on 256 test images.

    Raises
    ------
    UserError
        If onnx or onnxruntime is not installed, if a file is not usable, or if the outputs differ by more
        than 1e-5. Nothing has then been written.
    """
    onnx = _import("onnx")
    with chainer.using_config("dtype", np.float32):  # the exported model's, whatever CHAINER_DTYPE is
        model = load_model(model_file)
    content = build(model, onnx).SerializeToString()
    difference = _difference(model, content)
    if not difference <= _TOLERANCE:
        raise UserError(
            f"{onnx_file}: not written: onnxruntime's output differs from Chainer's by {difference:.1e}, "
            f"more than {_TOLERANCE:.0e}"
        )
    write_all(onnx_file.parent, {onnx_file.name: content}, inputs=[model_file])
    return difference


def build(model: CNNAE, onnx: ModuleType) -> Any:
    """The network as an ``onnx.ModelProto`` of eleven nodes. The weights have the article's names."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    tensors: list[Any] = []
    nodes: list[Any] = []

    def weights(**arrays: np.ndarray) -> list[str]:
        tensors.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
        return list(arrays)

    h = "degraded"
    for number in (1, 2, 3, 4):
        conv = model[f"conv{number}"]
        names = weights(**{f"conv{number}/W": conv.W.array})
        if conv.b is not None:
            names += weights(**{f"conv{number}/b": conv.b.array})
        nodes.append(helper.make_node("Conv", [h, *names], [f"conv{number}"], pads=[1, 1, 1, 1]))
        h = f"conv{number}"
        if number < 4:
            bn = model[f"bn{number}"]
            arrays = (bn.gamma.array, bn.beta.array, bn.avg_mean, bn.avg_var)
            labels = (f"bn{number}/{name}" for name in ("gamma", "beta", "avg_mean", "avg_var"))
            names = weights(**dict(zip(labels, arrays, strict=True)))
            nodes.append(
                helper.make_node("BatchNormalization", [h, *names], [f"bn{number}"], epsilon=float(bn.eps))
            )
            nodes.append(helper.make_node("Relu", [f"bn{number}"], [f"relu{number}"]))
            h = f"relu{number}"
    nodes.append(helper.make_node("Sigmoid", [h], ["restored"]))

    shape = ["batch", 1, "height", "width"]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name in ("degraded", "restored")
    ]
    graph = helper.make_graph(nodes, "CNNAE", ends[:1], ends[1:], tensors)
    proto = helper.make_model(
        graph,
        producer_name="srmnist",
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _difference(model: CNNAE, content: bytes) -> float:
    """Largest difference between the outputs of onnxruntime and Chainer for MNIST's first test images."""
    session = _import("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    degraded = degrade(to_float(embedded_mnist().test.images[:_IMAGES]))
    (restored,) = session.run(["restored"], {"degraded": degraded})
    return float(np.abs(restored - restore(degraded, model)).max())


def _import(name: str) -> ModuleType:
    try:
        return __import__(name)
    except ImportError as error:
        raise UserError(
            f"{name} is not installed or cannot be loaded ({error}); "
            "install it with: pip install onnx onnxruntime (or uv run --extra onnx …)"
        ) from error
