"""Operators that treat every element alike: what shape-changing operators may be moved past."""

from __future__ import annotations

from collections.abc import Sequence

from tvm.ir import Call, Expr, GenericConst

from evo_tvm.passes._rewrite import Graph, operator_name
from evo_tvm.passes._values import Array, array_of, same_type, shape_of

_UNARY_NAMES = (
    *(
        "abs",
        "ceil",
        "clip",
        "cos",
        "erf",
        "exp",
        "floor",
        "log",
        "negative",
        "rsqrt",
        "sigmoid",
        "sign",
        "sin",
        "sqrt",
    ),
    *("square", "tanh", "nn.gelu", "nn.gelu_tanh", "nn.leakyrelu", "nn.relu", "nn.silu"),
)
_BINARY_NAMES = ("add", "divide", "maximum", "minimum", "multiply", "power", "subtract")

#: Of one tensor (first operand), and of two that broadcast.
UNARY = tuple(f"relax.{name}" for name in _UNARY_NAMES)
BINARY = tuple(f"relax.{name}" for name in _BINARY_NAMES)

#: Operators over images with kernels of their own, which take elementwise operators behind them along.
IMAGE_KERNELS = ("relax.nn.conv2d", "relax.nn.max_pool2d", "relax.nn.avg_pool2d", "relax.nn.adaptive_avg_pool2d")


def padded(array: Array, rank: int) -> Array:
    """`array` with axes of size one before its own, `rank` in all."""
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def operand_and_constant(call: Call) -> tuple[Expr, Array | None] | None:
    """x and c of the elementwise `f(x)` (c is None) or `f(x, c)` that has the shape of x; None where it is neither.

    c is padded to the rank of x. Constants on the left are for `canonicalize` to turn round first.
    """
    name, shape = operator_name(call), shape_of(call)
    if shape is None or not (name in UNARY or name in BINARY) or not same_type(call, call.args[0]):
        return None
    if isinstance(call.args[0], GenericConst):
        return None
    if name in UNARY:
        return call.args[0], None
    array = array_of(call.args[1])
    return None if array is None or array.ndim > len(shape) else (call.args[0], padded(array, len(shape)))


def rebuilt(call: Call, args: Sequence[Expr]) -> Call:
    """The same operator on other tensors, whose result may have another shape: to be typed anew."""
    return Call(call.op, [*args, *list(call.args)[len(args) :]], call.attrs, call.ty_args, call.span)


def single(graph: Graph, expr: Expr, *operators: str) -> Call | None:
    """The call (of one of `operators`) that computes `expr` for nobody but the one that asks."""
    return graph.producer(expr, *operators) if graph.only_use(expr) else None


def ends_in_kernel(graph: Graph, expr: Expr) -> bool:
    """Whether `expr`, read once, is a kernel over images or a matrix product, perhaps with an epilogue."""
    call = single(graph, expr)
    if call is None or operator_name(call) in (*IMAGE_KERNELS, "relax.matmul"):
        return call is not None
    return operator_name(call) in (*UNARY, *BINARY) and any(ends_in_kernel(graph, arg) for arg in call.args)
