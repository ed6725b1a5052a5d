from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import relax

from evo_tvm.errors import CompileError
from evo_tvm.graph import Graph
from evo_tvm.plan.read_relax import read_relax
from tests.passes._check import Body, module, weights
from tests.plan.graphs import kinds


def read(body: Body, *inputs: object) -> Graph:
    return read_relax(module(body, *inputs))  # type: ignore[arg-type]


def conv(channels: int, groups: int = 1) -> Body:
    weight = weights(channels, 16 // groups, 3, 3)
    return lambda emit, x: emit(relax.op.nn.conv2d(x, weight, padding=(0, 1, 2, 3), groups=groups))


def test_a_convolution_keeps_its_attributes() -> None:
    g = read(conv(8), (1, 16, 5, 5))
    assert kinds(g) == ["conv2d"]
    assert g.groups[0].anchor.attrs["padding"] == (0, 1, 2, 3) and g.groups[0].anchor.attrs["groups"] == 1
    assert g.values[g.groups[0].inputs[1]].data is not None


@pytest.mark.parametrize(
    ("channels", "groups", "kind"),
    [(16, 16, "depthwise_conv2d"), (16, 2, "conv2d"), (16, 4, "conv2d"), (32, 16, "conv2d")],
)
def test_groups_of_any_size(channels: int, groups: int, kind: str) -> None:
    assert kinds(read(conv(channels, groups), (1, 16, 5, 5)))[-1] == kind


@pytest.mark.parametrize(
    ("attrs", "kind"),
    [
        ({"strides": 2, "padding": (0, 1, 2, 1), "output_padding": (1, 0)}, "conv2d_transpose"),
        ({"dilation": 2}, "conv2d_transpose"),
        ({"strides": (2, 1), "dilation": (1, 2)}, "conv2d_transpose"),
        ({"strides": (2, 1), "dilation": (2, 1)}, "tir"),
        ({"groups": 2}, "tir"),
    ],
)
def test_a_transposed_convolution(attrs: dict[str, Any], kind: str) -> None:
    weight = weights(16, 8, 3, 3)
    g = read(lambda emit, x: emit(relax.op.nn.conv2d_transpose(x, weight, **attrs)), (1, 16, 5, 5))
    assert kinds(g)[-1] == kind
    if kind != "tir" and "padding" in attrs:
        found = g.groups[0].anchor.attrs
        assert found["padding"] == (0, 1, 2, 1) and found["output_padding"] == (1, 0) and found["stride"] == (2, 2)


def test_weights_of_the_run_are_not_packed() -> None:
    assert kinds(read(lambda emit, x, w: emit(relax.op.nn.conv2d(x, w)), (1, 16, 5, 5), (8, 16, 1, 1)))[-1] == "tir"
    assert kinds(read(lambda emit, x, w: emit(relax.op.matmul(x, w)), (4, 8), (8, 3))) == ["matmul"]
    assert kinds(read(lambda emit, x: emit(relax.op.matmul(x, weights(8, 3))), (4, 8))) == ["dense"]


def test_products_of_activations_know_how_their_operands_lie() -> None:
    g = read(lambda emit, a, b: emit(relax.op.matmul(a, b)), (2, 3, 4, 8), (8, 5))
    assert kinds(g) == ["matmul"]
    assert g.groups[0].anchor.attrs["right_shape"] == (1, 1, 8, 5)
    assert g.groups[0].anchor.attrs["left_strides"] == (96, 32, 8, 1)
    assert kinds(read(lambda emit, a, b: emit(relax.op.matmul(a, b)), (8,), (8, 5)))[-1] == "tir"


def test_what_is_normalized_along_the_last_axis() -> None:
    ones = weights(5)
    assert kinds(read(lambda emit, x: emit(relax.op.nn.softmax(x, -1)), (3, 4, 5))) == ["softmax"]
    assert "softmax" not in kinds(read(lambda emit, x: emit(relax.op.nn.softmax(x, 1)), (3, 4, 5)))
    assert kinds(read(lambda emit, x: emit(relax.op.nn.layer_norm(x, ones, ones, [-1])), (3, 5))) == ["layer_norm"]
    assert kinds(read(lambda emit, x: emit(relax.op.permute_dims(x, [2, 0, 1])), (3, 4, 5))) == ["permute"]


def test_ranges_of_channels_and_pixels_several_times() -> None:
    g = read(lambda emit, x: emit(relax.op.strided_slice(x, [1], [-5], [8])), (1, 8, 4, 4))
    assert kinds(g) == ["channel_slice"] and g.groups[0].anchor.attrs == {"begin": 3}
    assert kinds(read(lambda emit, x: emit(relax.op.strided_slice(x, [2], [1], [3])), (1, 8, 4, 4))) == ["tir"]
    assert kinds(read(lambda emit, x: emit(relax.op.strided_slice(x, [1], [0], [8], [2])), (1, 8, 4, 4))) == ["tir"]

    def resize(size: tuple[int, int], mode: str) -> Body:
        how = {"method": "nearest_neighbor", "coordinate_transformation_mode": mode, "rounding_method": "floor"}
        return lambda emit, x: emit(relax.op.image.resize2d(x, size, **how))

    g = read(resize((8, 12), "asymmetric"), (1, 3, 4, 4))
    assert kinds(g) == ["upsample"] and g.groups[0].anchor.attrs == {"scale": (2, 3)}
    assert kinds(read(resize((6, 8), "asymmetric"), (1, 3, 4, 4))) == ["tir"]
    assert kinds(read(resize((8, 8), "half_pixel"), (1, 3, 4, 4))) == ["tir"]


@pytest.mark.parametrize("dtype", ["int64", "float16", "float64"])
def test_other_dtypes_go_through_tir(dtype: str) -> None:
    g = read(lambda emit, x: emit(relax.op.add(x, x)), ((3,), dtype))
    assert kinds(g) == ["tir"] and g.values[g.outputs[0]].dtype == dtype


def test_views_of_any_dtype_and_of_constants() -> None:
    g = read(lambda emit, x: emit(relax.op.reshape(x, (6,))), ((2, 3), "int64"))
    assert kinds(g) == ["view"]
    c = weights(6)
    g = read(lambda emit, x: emit(relax.op.add(x, emit(relax.op.reshape(c, (2, 3))))), (2, 3))
    assert kinds(g) == ["add"]
    np.testing.assert_array_equal(g.values[g.groups[0].inputs[1]].data, c.value.numpy().reshape(2, 3))


def test_one_constant_is_one_value() -> None:
    c = weights(3)
    g = read(lambda emit, x: emit(relax.op.multiply(emit(relax.op.add(x, c)), c)), (3,))
    assert g.groups[0].inputs[1] == g.groups[1].inputs[1]


def test_concat_of_channels_only() -> None:
    for axis, kind in ((1, "concat"), (-3, "concat"), (2, "tir")):
        g = read(lambda emit, x, a=axis: emit(relax.op.concat([x, x], axis=a)), (1, 4, 3, 3))
        assert kinds(g) == [kind]


def test_a_slice_has_bounds_that_are_no_tensors() -> None:
    g = read(lambda emit, x: emit(relax.op.strided_slice(x, [0], [1], [5], [2])), (6, 3))
    assert kinds(g) == ["tir"] and g.values[g.outputs[0]].shape == (2, 3)


def test_several_results_and_tuples() -> None:
    g = read(lambda emit, x: emit(relax.op.split(x, 2, axis=0)), (4, 3))
    assert kinds(g) == ["tir"] and [g.values[n].shape for n in g.outputs] == [(2, 3), (2, 3)]


def test_an_operator_without_tir_is_named() -> None:
    with pytest.raises(CompileError, match="cumsum"):
        read(lambda emit, x: emit(relax.op.cumsum(x, axis=0)), (4, 3))
