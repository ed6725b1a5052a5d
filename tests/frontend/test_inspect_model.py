"""`describe`: what is in a file, without compiling it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from evo_tvm.frontend.inspect_model import describe
from tests.frontend._models import parse


def test_a_model_is_summarised(free_onnx: Path) -> None:
    summary = describe(free_onnx)
    assert [str(tensor) for tensor in summary.inputs] == ["image: float32[batchx3x16x16]"]
    assert [str(tensor) for tensor in summary.outputs] == ["scores: float32[batchx10]"]
    assert summary.operators == {"Conv": 1, "Relu": 1, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
    assert (summary.parameters, summary.parameter_bytes) == (8 * 27 + 8 + 80 + 10, 4 * (8 * 27 + 8 + 80 + 10))
    assert summary.opsets == {"": 17}
    assert summary.unsupported == ()
    assert json.loads(json.dumps(summary.as_json()))["inputs"][0]["dims"] == ["batch", 3, 16, 16]


def test_the_text_names_what_matters(small_onnx: Path) -> None:
    text = str(describe(small_onnx))
    assert "input        image: float32[1x3x16x16]" in text
    assert "1 Conv" in text


def test_unsupported_operators_are_listed_and_rewritten_ones_are_not() -> None:
    model = parse("(float[3] x) => (float[3] y) { a = RandomNormalLike(x) b = Celu(a) y = Sum(b, a, x) }")
    assert [operator.op_type for operator in describe(model).unsupported] == ["RandomNormalLike"]


def test_a_model_in_qdq_form_is_said_to_be_quantized(small_onnx: Path) -> None:
    model = parse(
        """(float[1,4] x) => (float[1,4] y) <float s = {0.1}, uint8 z = {3}>
        { a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) c = Relu(b) d = QuantizeLinear(c, s, z)
          y = DequantizeLinear(d, s, z) }"""
    )
    summary = describe(model)
    assert summary.quantized and summary.as_json()["quantized"] is True
    assert "quantized    QDQ form: 2 QuantizeLinear, 2 DequantizeLinear" in str(summary)
    plain = describe(small_onnx)
    assert plain.as_json()["quantized"] is False and "quantized" not in str(plain)


def test_ordinary_models_are_described_without_tvm(small_onnx: Path) -> None:
    code = (
        "import sys; from evo_tvm.frontend.inspect_model import describe; "
        f"describe({str(small_onnx)!r}); sys.exit('tvm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
