"""ONNX Runtime as what tests hold results against."""

from __future__ import annotations

import onnx
import onnxruntime


def exact_session(model: onnx.ModelProto, optimized: str | None = None) -> onnxruntime.InferenceSession:
    """A session on one thread with all graph optimizations; the optimized graph goes to the file `optimized`.

    Where an x86 CPU has no dot product instruction, ONNX Runtime adds up pairs of products of bytes in 16 bits, which
    overflow: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#when-and-why-do-i-need-to-try-u8u8.
    It is told to be exact instead.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    if optimized is not None:
        options.optimized_model_filepath = optimized
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
