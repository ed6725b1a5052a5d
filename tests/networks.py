"""A few operators that meet in an awkward way: layouts, borders, aliases and outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.onnx_builder import Builder

Outputs = str | Sequence[str]


@dataclass(frozen=True)
class Network:
    """`write` adds the nodes and gives the name of the output, or of all."""

    name: str
    write: Callable[[Builder], Outputs] = field(compare=False)

    def build(self, b: Builder) -> None:
        outputs = self.write(b)
        b.outputs += [outputs] if isinstance(outputs, str) else outputs


NETWORKS: list[Network] = []


def network(write: Callable[[Builder], Outputs]) -> Callable[[Builder], Outputs]:
    """Puts the function into the table under its own name."""
    NETWORKS.append(Network(write.__name__, write))
    return write


def stem(b: Builder, channels: int = 16, size: int = 6, n: int = 1) -> str:
    return b.conv(b.input(n, 5, size, size), 5, channels)


# ---- Residuals and values with several readers ----


@network
def residual_of_two_convs(b: Builder) -> Outputs:
    x = stem(b, 24)
    return b.node("Relu", b.node("Add", b.conv(x, 24, 32, 3, 1), b.conv(x, 24, 32)))


@network
def residual_of_own_input_with_few_channels(b: Builder) -> Outputs:
    x = b.input(1, 3, 6, 6)
    return b.node("Relu", b.node("Add", b.conv(x, 3, 3, 3, 1), x))


@network
def residual_of_own_input(b: Builder) -> Outputs:
    x = b.input(2, 20, 6, 6)
    return b.node("Mul", b.conv(x, 20, 20, 3, 1), x)


@network
def residual_of_a_depthwise_input(b: Builder) -> Outputs:
    x = stem(b, 20)
    y = b.node("Conv", x, b.weights(20, 1, 3, 3, terms=9), pads=[1] * 4, group=20)
    return b.node("Add", x, y)


@network
def residual_of_a_pool_input(b: Builder) -> Outputs:
    x = stem(b, 20)
    return b.node("Sub", b.node("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4), x)


@network
def residual_of_a_global_pool(b: Builder) -> Outputs:
    x = b.input(1, 24, 1, 1)
    y = b.conv(x, 24, 24)
    return b.node("Add", b.node("GlobalAveragePool", y), y)


@network
def residual_of_a_dense_input(b: Builder) -> Outputs:
    x = b.input(3, 17)
    return b.node("Tanh", b.node("Add", b.node("MatMul", x, b.weights(17, 17, terms=17)), x))


@network
def chain_of_residuals(b: Builder) -> Outputs:
    x = stem(b, 24, 7, 2)
    for _ in range(3):
        x = b.node("Relu", b.node("Add", b.conv(b.node("Relu", b.conv(x, 24, 24, 3, 1)), 24, 24, 3, 1), x))
    return x


@network
def value_used_twice(b: Builder) -> Outputs:
    x = stem(b, 20)
    y = b.node("Mul", x, b.node("Sigmoid", x))
    return [b.node("Add", y, y), y]


@network
def squeeze_and_excite(b: Builder) -> Outputs:
    x = stem(b, 24, 6, 2)
    s = b.node("Relu", b.conv(b.node("GlobalAveragePool", x), 24, 6))
    return b.conv(b.node("Mul", x, b.node("Sigmoid", b.conv(s, 6, 24))), 24, 16, 3, 1)


@network
def elementwise_over_a_dead_value(b: Builder) -> Outputs:
    x = b.node("Exp", stem(b, 16))
    y = b.node("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4)
    z = b.node("Sqrt", b.node("Add", b.node("MaxPool", y, kernel_shape=[1, 1]), y))
    return b.node("Sub", z, b.node("MaxPool", z, kernel_shape=[3, 3], pads=[1] * 4))


# ---- Channels that only pad a block ----


@network
def log_on_idle_lanes(b: Builder) -> Outputs:
    x = b.node("Log", b.node("Add", b.node("Sigmoid", stem(b, 20)), b.weights(1, 20, 1, 1)))
    y = b.node("Log", b.node("Abs", stem(b, 20)))
    return [b.node("IsNaN", x), b.conv(y, 20, 16)]


@network
def division_on_idle_lanes(b: Builder) -> Outputs:
    x, y = stem(b, 20), b.node("Exp", b.node("Neg", stem(b, 20)))
    return b.conv(b.node("Div", b.node("Relu", x), y), 20, 16, 3, 1)


@network
def division_by_a_runtime_channel_on_idle_lanes(b: Builder) -> Outputs:
    scale = b.node("Exp", b.input(1, 20, 1, 1))
    return b.conv(b.node("Div", stem(b, 20), scale), 20, 16)


@network
def sqrt_on_idle_lanes(b: Builder) -> Outputs:
    x = b.node("Add", b.node("Exp", stem(b, 20)), b.constant(-1.0001))
    return b.conv(b.node("Sqrt", b.node("Mul", x, x)), 20, 16)


@network
def root_of_a_negative_on_idle_lanes(b: Builder) -> Outputs:
    x = b.node("Relu", stem(b, 20))  # idle lanes: sqrt(0 + 1 - 2)
    x = b.node("Add", x, b.constant(np.r_[np.full(20, 3.0)].reshape(1, 20, 1, 1)))
    return b.conv(b.node("Sqrt", b.node("Sub", x, b.constant(2.0))), 20, 16)


@network
def overflow_on_idle_lanes(b: Builder) -> Outputs:
    x = b.node("Sub", b.node("Relu", stem(b, 20)), b.constant(np.full((1, 20, 1, 1), 92.0)))
    return b.conv(b.node("Exp", b.node("Add", x, b.constant(91.5))), 20, 16)


@network
def runtime_overflow_on_idle_lanes(b: Builder) -> Outputs:
    x = b.node("Sub", stem(b, 20), b.constant(np.full((1, 20, 1, 1), 92.0)))
    scalar = b.node("Add", b.node("Tanh", b.input(1)), b.constant(91.0))
    return b.conv(b.node("Exp", b.node("Add", x, scalar)), 20, 16)


# ---- Concatenation ----


@network
def concat_of_convs(b: Builder) -> Outputs:
    x = stem(b, 16, 6, 2)
    y = b.node("Concat", b.conv(x, 16, 16), b.node("Relu", b.conv(x, 16, 32, 3, 1)), axis=1)
    return b.conv(y, 48, 8, 3, 1)


@network
def concat_of_concat(b: Builder) -> Outputs:
    x = stem(b, 16)
    y = b.node("Concat", x, b.conv(x, 16, 16, 3, 1), axis=1)
    z = b.node("Concat", b.conv(y, 32, 16, 3, 1), y, axis=1)
    return [b.conv(z, 48, 8, 5, 2), b.node("Relu", y)]


@network
def dense_block(b: Builder) -> Outputs:
    x = stem(b, 16, 5, 2)
    for i in range(3):
        new = b.conv(b.node("Relu", b.conv(x, 16 + 16 * i, 32)), 32, 16, 3, 1)
        x = b.node("Concat", x, new, axis=1)
    return b.node("Relu", x)


@network
def value_in_two_concats(b: Builder) -> Outputs:
    x, y = stem(b, 16), stem(b, 16)
    return [b.node("Concat", x, y, axis=1), b.node("Relu", b.node("Concat", y, x, axis=1))]


@network
def concat_with_itself(b: Builder) -> Outputs:
    x = stem(b, 16)
    return b.conv(b.node("Concat", x, x, axis=1), 32, 8, 3, 1)


@network
def concat_with_an_input(b: Builder) -> Outputs:
    x = b.input(2, 16, 5, 5)
    return b.conv(b.node("Concat", b.conv(x, 16, 16, 3, 1), x, axis=1), 32, 8)


@network
def concat_with_a_constant(b: Builder) -> Outputs:
    return b.node("Relu", b.node("Concat", stem(b, 16), b.weights(1, 16, 6, 6), axis=1))


@network
def concat_of_24_channels(b: Builder) -> Outputs:
    x = stem(b, 24)
    return b.conv(b.node("Concat", x, b.conv(x, 24, 24), b.node("Relu", x), axis=1), 72, 16, 3, 1)


@network
def concat_of_plain_and_odd(b: Builder) -> Outputs:
    return b.node("Concat", b.input(2, 3, 5, 5), b.input(2, 1, 5, 5), b.conv(b.input(2, 3, 5, 5), 3, 7), axis=1)


@network
def concat_on_other_axes(b: Builder) -> Outputs:
    x, y = stem(b, 16), stem(b, 16)
    return [b.node("Concat", x, y, axis=a) for a in (0, 2, 3)]


@network
def concat_of_pixels_with_a_viewed_part(b: Builder) -> Outputs:
    x = b.input(2, 16, 1, 1)
    first, second = b.conv(x, 16, 16), b.conv(x, 16, 32)
    whole = b.node("Concat", first, second, axis=1)
    return [b.conv(whole, 48, 8), b.node("Flatten", second), second]


@network
def concat_of_pixels_that_is_viewed(b: Builder) -> Outputs:
    x = b.input(2, 16, 1, 1)
    first, second = b.conv(x, 16, 16), b.conv(x, 16, 32)
    whole = b.node("Concat", first, second, axis=1)
    return [b.node("Flatten", whole), b.conv(second, 32, 8, 3, 1), b.conv(first, 16, 3, 5, 2)]


@network
def concat_with_operands_read_inside_it(b: Builder) -> Outputs:
    x = stem(b, 16, 6, 3)
    y = b.conv(x, 16, 16, 3, 1)
    whole = b.node("Concat", x, y, axis=1)
    return [b.node("MaxPool", y, kernel_shape=[3, 3]), b.node("Add", b.conv(whole, 32, 16), y)]


# ---- Borders ----


@network
def border_shared_by_different_paddings(b: Builder) -> Outputs:
    x = stem(b, 16, 7)
    one, two = b.conv(x, 16, 8, 3, 1), b.conv(x, 16, 8, 5, 2)
    odd = b.node("Conv", x, b.weights(8, 16, 2, 3, terms=96), pads=[1, 0, 0, 3], strides=[2, 1])
    pooled = b.node("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4)
    return [one, two, odd, pooled, b.node("GlobalAveragePool", x), b.node("Relu", x)]


@network
def border_around_an_input(b: Builder) -> Outputs:
    x = b.input(2, 3, 7, 9)
    return [b.conv(x, 3, 8, 3, 1), b.conv(x, 3, 8, 5, 2), b.node("Relu", x)]


@network
def borders_reused_in_a_chain(b: Builder) -> Outputs:
    x = stem(b, 16, 9)
    for k in (3, 5, 3, 1, 7, 3):
        x = b.node("Relu", b.conv(x, 16, 16, k, k // 2))
    return x


@network
def border_on_a_pixel_that_is_viewed(b: Builder) -> Outputs:
    x = b.conv(b.input(1, 16, 1, 1), 16, 16)
    return [b.node("Flatten", x), b.conv(x, 16, 8, 3, 1)]


@network
def border_around_an_in_place_result(b: Builder) -> Outputs:
    x = b.node("Exp", stem(b, 16))
    pooled = b.node("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4)
    y = b.conv(x, 16, 16, 3, 1)
    z = b.node("Mul", b.node("Tanh", y), pooled)
    return b.conv(b.node("Add", b.conv(z, 16, 16, 3, 1), z), 16, 16, 3, 1)


# ---- Views and outputs ----


@network
def outputs_that_are_other_things(b: Builder) -> Outputs:
    x = b.input(1, 16, 4, 4)
    y = b.conv(x, 16, 16)
    z = b.node("Relu", b.conv(y, 16, 16, 3, 1))
    return [x, y, b.constant(np.arange(6).reshape(2, 3)), z, z, y, b.node("Flatten", x), b.node("Flatten", z)]


@network
def output_that_is_read_again(b: Builder) -> Outputs:
    x = b.input(3, 17)
    y = b.node("Exp", x)
    return [y, b.node("Sqrt", y), b.node("Reshape", y, b.constant([17, 3], "int64"))]


@network
def flatten_and_reshape_of_a_blocked_value(b: Builder) -> Outputs:
    x = stem(b, 24, 4, 2)
    y = b.node("Reshape", x, b.constant([2, 4, 6, 16], "int64"))
    return [b.node("MatMul", b.node("Flatten", x), b.weights(384, 7, terms=384)), b.conv(y, 4, 8), b.node("Relu", y)]


@network
def reshape_into_a_convolution_and_back(b: Builder) -> Outputs:
    x = b.node("Reshape", b.input(2, 6, 32), b.constant([2, 12, 4, 4], "int64"))
    y = b.conv(x, 12, 16, 3, 1)
    return b.node("Softmax", b.node("Reshape", y, b.constant([2, 16, 16], "int64")), axis=-1)


@network
def view_of_a_constant(b: Builder) -> Outputs:
    c = b.node("Reshape", b.weights(24), b.constant([1, 24, 1, 1], "int64"))
    return b.node("Add", stem(b, 24), c)


@network
def pooled_classifier(b: Builder) -> Outputs:
    x = b.node("Flatten", b.node("GlobalAveragePool", b.node("Relu", stem(b, 24, 7, 2))))
    return b.node("Softmax", b.node("Gemm", x, b.weights(24, 10, terms=24), b.weights(10)))


@network
def transforms_there_and_back(b: Builder) -> Outputs:
    x = stem(b, 20, 6, 2)
    y = b.node("Transpose", x, perm=[0, 2, 3, 1])
    y = b.node("Transpose", b.node("LayerNormalization", y, b.weights(20), b.weights(20)), perm=[0, 3, 1, 2])
    return b.conv(y, 20, 16, 3, 1)
