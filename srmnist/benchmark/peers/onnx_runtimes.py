"""The network in onnxruntime and in OpenVINO, which only restore: from this project's own ONNX export."""

from __future__ import annotations

import numpy as np
import onnx

from srmnist.benchmark.variants import ONNXRUNTIME, OPENVINO_BF16, Chosen, Variant
from srmnist.model import CNNAE
from srmnist.onnx_export import build


def make(
    name: str, model: CNNAE, inputs: np.ndarray, targets: np.ndarray, gpu: int = -1, batch: int = 64
) -> Variant:
    """A variant of onnxruntime or OpenVINO on the CPU."""
    content = build(model, onnx).SerializeToString()
    if name == ONNXRUNTIME:
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return Variant(None, lambda chosen: session.run(["restored"], {"degraded": inputs[chosen]})[0])

    import openvino

    precision = "bf16" if name == OPENVINO_BF16 else "f32"
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    core = openvino.Core()
    request = core.compile_model(core.read_model(content), "CPU", settings).create_infer_request()

    def evaluate(chosen: Chosen) -> np.ndarray:
        return request.infer({0: inputs[chosen]}, share_inputs=True, share_outputs=True)[0]

    return Variant(None, evaluate)
