"""conv2d(pad(x, 0), w, padding=p) => conv2d(x, w, padding=p + pad); the same for average and maximum pooling.

Exact, or not done: a convolution pads with zeros; an average pool must count the padding among its elements; a maximum
pool pads with minus infinity, which zeros may only stand for where `x` is never negative and every window has some of
`x` in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import relax
from tvm.ir import Call, Expr

from evo_tvm.passes._rewrite import Graph, Rule, operator_name, retyped, rewriting_pass
from evo_tvm.passes._values import dtype_of, is_float, is_never_negative


@dataclass(frozen=True)
class _Found:
    call: Call
    pad: Call

    @property
    def widths(self) -> list[int]:
        """Before and after, for each axis in turn."""
        return [int(width) for width in self.pad.attrs.pad_width]

    @property
    def padding(self) -> list[int]:
        """What the operator is to pad in all: top, left, bottom, right."""
        top, bottom, left, right = self.widths[4:]
        return [own + more for own, more in zip(_own_padding(self.call), (top, left, bottom, right), strict=True)]


def _own_padding(call: Call) -> list[int]:
    return [int(width) for width in call.attrs.padding]


class _Fold(Rule[_Found]):
    roots: ClassVar[tuple[str, ...]] = ("relax.nn.conv2d", "relax.nn.avg_pool2d", "relax.nn.max_pool2d")

    def match(self, graph: Graph, value: Expr) -> _Found | None:
        pad = graph.producer(value.args[0], "relax.nn.pad")
        return None if pad is None else _Found(value, pad)

    def check(self, graph: Graph, found: _Found) -> str | None:
        call, pad = found.call, found.pad
        layout = call.attrs.data_layout if operator_name(call) == "relax.nn.conv2d" else call.attrs.layout
        if layout != "NCHW":
            return f"the layout is {layout}"
        if pad.attrs.pad_mode != "constant":
            return f"the padding is of mode {pad.attrs.pad_mode}"
        if any(found.widths[:4]) or min(found.widths) < 0:
            return "it does not only pad height and width"
        if operator_name(call) != "relax.nn.conv2d" and call.attrs.ceil_mode:
            return "with ceil_mode, which windows there are depends on the padding"
        value = float(pad.attrs.pad_value)
        if operator_name(call) == "relax.nn.max_pool2d":
            return _check_max_pool(graph, found, value)
        if value != 0:
            return f"it pads with {value:g}, the operator with 0"
        average = operator_name(call) == "relax.nn.avg_pool2d"
        if average and any(_own_padding(call)) and not call.attrs.count_include_pad:
            return "the pool counts these zeros, but not its own padding"
        return None

    def rewrite(self, graph: Graph, found: _Found) -> Expr:
        call, data, attrs = found.call, found.pad.args[0], found.call.attrs
        if operator_name(call) == "relax.nn.conv2d":
            new = relax.op.nn.conv2d(
                data, call.args[1], attrs.strides, found.padding, attrs.dilation, attrs.groups, attrs.data_layout,
                attrs.kernel_layout, attrs.out_layout, attrs.out_dtype,
            )  # fmt: skip
            return retyped(call, [data, call.args[1]], new.attrs)
        average = operator_name(call) == "relax.nn.avg_pool2d"
        new = (relax.op.nn.avg_pool2d if average else relax.op.nn.max_pool2d)(
            data, attrs.pool_size, attrs.strides, found.padding, attrs.dilation, attrs.ceil_mode,
            average or attrs.count_include_pad, attrs.layout, attrs.out_layout,
        )  # fmt: skip
        return retyped(call, [data], new.attrs)


def _check_max_pool(graph: Graph, found: _Found, value: float) -> str | None:
    dtype = dtype_of(found.pad)
    if is_float(dtype) and value <= np.finfo(dtype).min:
        return None
    if value != 0 or not is_never_negative(graph.producer(found.pad.args[0])):
        return f"it pads with {value:g}, which can exceed what the pool sees"
    height, width = (int(size) for size in found.call.attrs.pool_size)
    if any(int(d) != 1 for d in found.call.attrs.dilation):
        return "the windows are dilated"
    reach = (height, width, height, width)
    if any(pad >= size for pad, size in zip(found.padding, reach, strict=True)):
        return "some windows would hold nothing but padding"
    return None


fold_pad = rewriting_pass("fold_pad", lambda: [_Fold()])
