"""Clean-up leaves what has to be computed, and nothing else."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from evo_tvm.frontend.clean_model import clean_model, drop_initializers_from_inputs
from evo_tvm.frontend.read_model import read_model
from tests.frontend._models import constant, evaluate, operators, parse, random_inputs


def cleaned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model after clean-up."""
    graph = read_model(model)
    drop_initializers_from_inputs(graph)
    clean_model(graph)
    proto: onnx.ModelProto = ir.serde.serialize_model(graph)
    return proto


SHAPE_ARITHMETIC = """(float[2,3,4] x) => (float[2,12] y) {
    shape = Shape(x)
    parts_n, parts_c, parts_w = Split<axis = 0, num_outputs = 3>(shape)
    rest = Mul(parts_c, parts_w)
    target = Concat<axis = 0>(parts_n, rest)
    y = Reshape(x, target)
}"""


def test_shape_arithmetic_becomes_a_constant() -> None:
    model = parse(SHAPE_ARITHMETIC)
    clean = cleaned(model)
    assert operators(clean) == ["Reshape"]
    inputs = random_inputs(model)
    np.testing.assert_array_equal(evaluate(clean, inputs)[0], evaluate(model, inputs)[0])


def test_twice_is_as_once() -> None:
    once = cleaned(parse(SHAPE_ARITHMETIC))
    assert cleaned(once).graph.node == once.graph.node


def test_float16_weights_that_are_only_stored_so_become_float32() -> None:
    model = parse("(float[2,3] x) => (float[2,4] y) { wide = Cast<to = 1>(w) y = MatMul(x, wide) }")
    model.graph.initializer.append(constant("w", np.ones((3, 4)), "float16"))
    clean = cleaned(model)
    assert operators(clean) == ["MatMul"]
    assert [tensor.data_type for tensor in clean.graph.initializer] == [onnx.TensorProto.FLOAT]


def test_weights_made_by_nodes_become_constants() -> None:
    model = parse(
        "(float[2,3] x) => (float[2,4] y) { s = Constant<value_ints = [3, 4]>() w = ConstantOfShape(s) "
        "y = MatMul(x, w) }"
    )
    assert operators(cleaned(model)) == ["MatMul"]


def test_quantized_weights_stay_quantized() -> None:
    model = parse("(float[2,3] x) => (float[2,3] y) { w = DequantizeLinear(q, s) y = Mul(x, w) }")
    model.graph.initializer.extend([constant("q", np.ones((2, 3)), "int8"), constant("s", np.float32(0.5), "float32")])
    assert operators(cleaned(model)) == ["DequantizeLinear", "Mul"]


def test_weights_listed_among_the_inputs_are_weights() -> None:
    model = parse("(float[3] x, float[3] w) => (float[3] y) { n = Neg(w) y = Add(x, n) }")
    model.graph.initializer.append(constant("w", [1, 2, 3], "float32"))
    clean = cleaned(model)
    assert [value.name for value in clean.graph.input] == ["x"]
    assert operators(clean) == ["Add"]


def test_functions_of_the_model_are_inlined() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21, "mine" : 1]>
        main (float[3] x) => (float[3] y) { y = mine.twice(x) }
        <domain: "mine", opset_import: ["" : 21]>
        twice (a) => (b) { b = Add(a, a) }"""
    )
    assert operators(cleaned(model)) == ["Add"]


def test_dead_nodes_go_and_names_stay() -> None:
    model = parse("(float[3] x) => (float[3] y) { dead = Neg(x) i = Identity(x) y = Relu(i) }")
    model.graph.node[2].name = "the relu"
    clean = cleaned(model)
    assert [node.name for node in clean.graph.node] == ["the relu"]


def test_if_on_a_constant_is_decided() -> None:
    model = parse("""(float[3] x) => (float[3] y) {
        yes = Constant<value = bool {1}>()
        y = If(yes) <then_branch = a () => (float[3] t) { t = Relu(x) },
                     else_branch = b () => (float[3] e) { e = Neg(x) }>
    }""")
    assert operators(cleaned(model)) == ["Relu"]
