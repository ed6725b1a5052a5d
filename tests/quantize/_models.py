"""What the tests of quantization share: ONNX Runtime as the runner, figures, and a few networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_runtime import exact_session

Feeds = list[dict[str, np.ndarray]]


def ort_runner(model: onnx.ModelProto) -> Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]:
    """ONNX Runtime as a MakeRunner."""
    session = exact_session(model)
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(None, dict(inputs)), strict=True))


def sqnr_db(exact: np.ndarray, rough: np.ndarray) -> float:
    """Signal to quantization noise ratio in dB."""
    return float(10 * np.log10(np.square(exact, dtype=np.float64).sum() / np.square(exact - rough).sum()))


def end_to_end_db(model: onnx.ModelProto, quantized: onnx.ModelProto, feeds: Feeds) -> float:
    """The least SQNR of any output of `quantized` against `model`, both under ONNX Runtime."""
    left, right = ort_runner(model), ort_runner(quantized)
    pairs = [(left(feed), right(feed)) for feed in feeds]
    return min(
        sqnr_db(
            np.concatenate([a[name].ravel() for a, _ in pairs]), np.concatenate([b[name].ravel() for _, b in pairs])
        )
        for name in pairs[0][0]
    )


def operators(model: onnx.ModelProto) -> Counter[str]:
    """How often each operator occurs."""
    return Counter(node.op_type for node in model.graph.node)


def constant(model: onnx.ModelProto, name: str) -> np.ndarray:
    """The value of an initializer."""
    return next(numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == name)


def onnx_model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int | str, ...]],
    constants: dict[str, np.ndarray],
    outputs: list[str],
    opset: int = 17,
) -> onnx.ModelProto:
    """A float32 model of these nodes."""
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made)


def residual_model(seed: int = 0, batch: int | str = 1) -> onnx.ModelProto:
    """conv+bn+relu -> conv+bn -> add -> relu -> maxpool -> concat(two convs) -> global pooling -> dense; 8x8 images."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    constants: dict[str, np.ndarray] = {}
    nodes = []
    for name, out, into, kernel in (("a", 8, 3, 3), ("b", 8, 8, 3), ("c", 4, 8, 1), ("d", 6, 8, 3)):
        constants[f"{name}.weight"] = weights(out, into, kernel, kernel)
        for part in ("gamma", "beta", "mean"):
            constants[f"{name}.{part}"] = rng.uniform(0.5, 1.5, out).astype(np.float32) - (part != "gamma")
        constants[f"{name}.var"] = rng.uniform(0.5, 2.0, out).astype(np.float32)
        source = {"a": "x", "b": "a.relu", "c": "pool", "d": "pool"}[name]
        nodes.append(
            helper.make_node("Conv", [source, f"{name}.weight"], [f"{name}.conv"], name, pads=[kernel // 2] * 4)
        )
        parts = [f"{name}.{part}" for part in ("gamma", "beta", "mean", "var")]
        nodes.append(helper.make_node("BatchNormalization", [f"{name}.conv", *parts], [f"{name}.bn"], f"{name}.bn"))
        if name == "a":
            nodes.append(helper.make_node("Relu", ["a.bn"], ["a.relu"], "a.relu"))
        if name == "b":
            nodes.append(helper.make_node("Add", ["b.bn", "a.relu"], ["sum"], "add"))
            nodes.append(helper.make_node("Relu", ["sum"], ["sum.relu"], "add.relu"))
            nodes.append(
                helper.make_node("MaxPool", ["sum.relu"], ["pool"], "pool", kernel_shape=[2, 2], strides=[2, 2])
            )
    nodes.append(helper.make_node("Concat", ["c.bn", "d.bn"], ["joined"], "concat", axis=1))
    nodes.append(helper.make_node("GlobalAveragePool", ["joined"], ["mean"], "gap"))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"], "flatten"))
    constants |= {"fc.weight": weights(5, 10), "fc.bias": weights(5, 1).ravel()}
    nodes.append(helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["scores"], "fc", transB=1))
    return onnx_model(nodes, {"x": (batch, 3, 8, 8)}, constants, ["scores"])


def feeds(shape: tuple[int, ...], count: int = 16, seed: int = 1, name: str = "x") -> Feeds:
    """Normally distributed inputs."""
    rng = np.random.default_rng(seed)
    return [{name: rng.standard_normal(shape).astype(np.float32)} for _ in range(count)]
