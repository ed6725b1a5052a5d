"""Free dimensions get sizes, or a message that says which option to pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir
import pytest

from evo_tvm.errors import ModelError, UsageError
from evo_tvm.frontend.fix_shapes import fix_shapes, parse_input_shape
from evo_tvm.frontend.read_model import read_model
from tests.frontend._models import parse

TWO_INPUTS = "(float[N,3,H,W] image, float[N,10] scores) => (float[N,10] y) { y = Relu(scores) }"


def fixed(graph: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """The shapes of the inputs of a model after `fix_shapes`."""
    model = read_model(parse(graph))
    fix_shapes(model, shapes)
    return {str(value.name): [int(str(dim)) for dim in value.shape or ()] for value in model.graph.inputs}


@pytest.mark.parametrize(
    ("text", "name", "shape"),
    [
        ("image:1x3x224x224", "image", (1, 3, 224, 224)),
        ("serving_default_x:0:1x10", "serving_default_x:0", (1, 10)),
        ("x:7", "x", (7,)),
        ("x:1,3", "x", (1, 3)),
    ],
)
def test_options_are_parsed(text: str, name: str, shape: tuple[int, ...]) -> None:
    assert parse_input_shape(text) == (name, shape)


@pytest.mark.parametrize("text", ["image", "image:", ":1x3", "image:1x-1", "image:1xN"])
def test_options_that_are_no_shape(text: str) -> None:
    with pytest.raises(UsageError, match=rf"'{text}' is not NAME:SHAPE\nWrite it like --input image:1x3x224x224"):
        parse_input_shape(text)


def test_a_size_given_once_fills_its_name_everywhere() -> None:
    assert fixed(TWO_INPUTS, {"image": (4, 3, 32, 64)}) == {"image": [4, 3, 32, 64], "scores": [4, 10]}


def test_static_models_need_nothing() -> None:
    assert fixed("(float[2] x) => (float[2] y) { y = Relu(x) }", {}) == {"x": [2]}


def test_stale_inner_shapes_are_forgotten() -> None:
    model = read_model(parse("(float[N] x) => (float[N] y) <float[N] h> { h = Relu(x) y = Relu(h) }"))
    fix_shapes(model, {"x": (3,)})
    assert all(value.shape is None for node in model.graph for value in node.outputs)
    assert isinstance(model, ir.Model)


def test_free_dimensions_are_reported_with_the_option_to_pass() -> None:
    with pytest.raises(ModelError) as error:
        fixed(TWO_INPUTS, {})
    assert str(error.value) == (
        "inputs with free dimensions: 'image' is Nx3xHxW, 'scores' is Nx10\n"
        "Say which sizes to compile for, for example: --input image:1x3x224x224 --input scores:1x10"
    )


def test_an_unknown_name_is_reported_with_close_ones() -> None:
    with pytest.raises(UsageError, match=r"the model has no input 'imgae'\nDid you mean 'image'\?"):
        fixed(TWO_INPUTS, {"imgae": (1, 3, 8, 8)})
    with pytest.raises(UsageError, match="no input 'foo'\nThe inputs are image, scores"):
        fixed(TWO_INPUTS, {"foo": (1,)})


def test_a_wrong_rank() -> None:
    with pytest.raises(UsageError, match=r"input 'image' has 4 dimensions \(expected Nx3xHxW, got 3x8x8\)"):
        fixed(TWO_INPUTS, {"image": (3, 8, 8)})


def test_a_dimension_that_the_model_fixes() -> None:
    with pytest.raises(UsageError, match=r"dimension 1 of input 'image' is fixed in the model \(expected 3, got 1\)"):
        fixed(TWO_INPUTS, {"image": (1, 1, 8, 8)})


def test_one_name_with_two_sizes() -> None:
    with pytest.raises(UsageError, match=r"input 'scores': dimension 'N' is given two sizes \(expected 2, got 3\)"):
        fixed(TWO_INPUTS, {"image": (2, 3, 8, 8), "scores": (3, 10)})


def test_an_input_of_unknown_rank() -> None:
    model = parse("(float[2] x) => (float[2] y) { y = Relu(x) }")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelError, match="input with free dimensions: 'x' is of unknown rank"):
        fix_shapes(read_model(model), {})
    graph = read_model(model)
    fix_shapes(graph, {"x": (2,)})
    assert graph.graph.inputs[0].shape == (2,)


def test_a_size_of_nothing() -> None:
    with pytest.raises(UsageError, match="sizes must be at least 1"):
        fixed(TWO_INPUTS, {"image": (0, 3, 8, 8)})
