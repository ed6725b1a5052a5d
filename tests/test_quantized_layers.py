"""The models that ONNX Runtime quantizes: every layer, fed what ONNX Runtime feeds it, and the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import evo_tvm
from evo_tvm.bench import light, zoo
from evo_tvm.bench.inputs import random_inputs
from evo_tvm.bench.peers.prepare_model import input_specs
from evo_tvm.bench.quantized import quantize_as_ort
from tests.onnx_runtime import exact_session

#: Six whole networks in the slow tier; a small one always.
MODELS = (
    "light_squeezenet",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("resnet18", "resnet34", "resnet50", "vgg11", "mobilenetv2", "efficientnet_lite0")
    ),
)
#: Of a layer's elements that may be one step off.
MOST_APART = 1e-3
LEAST_SQNR_DB = 30.0


def quantized(name: str, folder: Path) -> onnx.ModelProto:
    small = name.removeprefix("light_")
    onnx.save(zoo.build(name, 1) if small == name else light.light(small, 1), folder / "plain.onnx")
    quantize_as_ort(folder / "plain.onnx", folder / "quantized.onnx")
    return onnx.shape_inference.infer_shapes(onnx.load(folder / "quantized.onnx"))


def activations(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Every tensor of bytes that a QuantizeLinear writes."""
    known = {value.name: value for value in model.graph.value_info}
    return {n.output[0]: known[n.output[0]] for n in model.graph.node if n.op_type == "QuantizeLinear"}


def with_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, which gives its bytes too."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(activations(model).values())
    return shown


def cut(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in pieces: whoever reads bytes takes them from outside, as the input "NAME:in"."""
    pieces = with_outputs(model)
    bytes_of = activations(model)
    for node in pieces.graph.node:
        for i, name in enumerate(node.input):
            if name in bytes_of:
                node.input[i] = f"{name}:in"
    for name, value in bytes_of.items():
        fed = onnx.ValueInfoProto()
        fed.CopyFrom(value)
        fed.name = f"{name}:in"
        pieces.graph.input.append(fed)
    return pieces


def sqnr_db(wanted: np.ndarray, got: np.ndarray) -> float:
    noise = float(((wanted - got).astype(np.float64) ** 2).sum())
    return float("inf") if noise == 0 else 10 * np.log10(float((wanted.astype(np.float64) ** 2).sum()) / noise)


@pytest.mark.parametrize("name", MODELS)
def test_layers_and_whole(name: str, tmp_path: Path) -> None:
    model = quantized(name, tmp_path)
    inputs = random_inputs(input_specs(model), 100)
    shown = with_outputs(model)
    session = exact_session(shown)
    names = [output.name for output in shown.graph.output]
    wanted = dict(zip(names, session.run(names, inputs), strict=True))

    pieces = evo_tvm.compile(cut(model)).module()
    got = pieces.run({**inputs, **{f"{tensor}:in": wanted[tensor] for tensor in activations(model)}})
    apart = {}
    for tensor in activations(model):
        steps = np.abs(got[tensor].astype(np.int32) - wanted[tensor].astype(np.int32))
        assert steps.max() <= 1, tensor
        apart[tensor] = float(np.mean(steps > 0))
    assert {tensor: part for tensor, part in apart.items() if part > MOST_APART} == {}

    artifact = evo_tvm.compile(model)
    assert artifact.manifest.stayed_float == ()
    kernels = [kernel for kernel in artifact.manifest.kernels if "conv2d" in kernel.operator]
    assert kernels and {kernel.dtype for kernel in kernels} == {"int8"}
    (output,) = (output.name for output in model.graph.output)
    plain = exact_session(model)
    assert sqnr_db(plain.run([output], inputs)[0], artifact.module().run(inputs)[output]) >= LEAST_SQNR_DB
