"""Conv(auto_pad="SAME_UPPER") => Conv(pads=...): the sizes are known, so the padding is too.

https://onnx.ai/onnx/operators/onnx__Conv.html gives the formulas.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from evo_tvm.frontend.operators.builder import Builder, CannotRewrite, Rewrite, attribute, operand, static_shape


def _explicit_padding(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Replace `auto_pad` by the `pads` that it means; pools keep their kernel and convolutions take their weight's."""
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode == "NOTSET":
        raise CannotRewrite("its padding is explicit")
    sizes = static_shape(node.inputs[0])[2:]
    kernel = attribute(node, "kernel_shape") or static_shape(operand(node, 1))[2:]
    strides = attribute(node, "strides", [1] * len(sizes))
    dilations = attribute(node, "dilations", [1] * len(sizes))
    pads = [0] * (2 * len(sizes))
    if mode != "VALID":
        for axis, (size, extent, stride, dilation) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
            count = -(-size // stride)
            total = max((count - 1) * stride + (extent - 1) * dilation + 1 - size, 0)
            small, large = total // 2, total - total // 2
            begin, end = (small, large) if mode == "SAME_UPPER" else (large, small)
            pads[axis], pads[axis + len(sizes)] = begin, end
    # The count above is what the operator gives with floor; `ceil_mode` would add windows.
    replaced = ("auto_pad", "ceil_mode", "pads")
    attributes = {name: value.value for name, value in node.attributes.items() if name not in replaced}
    return op.ops(node.op_type, *node.inputs, outputs=len(node.outputs), **attributes, pads=pads)


def _explicit_padding_of_transposed(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """ConvTranspose(output_shape=...) or with `auto_pad` => ConvTranspose(pads=..., output_padding=...)."""
    mode, wanted = attribute(node, "auto_pad", "NOTSET"), attribute(node, "output_shape")
    if mode == "NOTSET" and not wanted:
        raise CannotRewrite("its padding is explicit")
    sizes = static_shape(node.inputs[0])[2:]
    kernel = attribute(node, "kernel_shape") or static_shape(operand(node, 1))[2:]
    strides = attribute(node, "strides", [1] * len(sizes))
    dilations = attribute(node, "dilations", [1] * len(sizes))
    extra = list(attribute(node, "output_padding", [0] * len(sizes)))
    pads = [0] * (2 * len(sizes))
    if wanted or mode != "VALID":
        targets = list(wanted)[-len(sizes) :] if wanted else [s * t for s, t in zip(sizes, strides, strict=True)]
        for axis, target in enumerate(targets):
            full = strides[axis] * (sizes[axis] - 1) + (kernel[axis] - 1) * dilations[axis] + 1 + extra[axis]
            total = max(full - target, 0)
            extra[axis] += max(target - full, 0)
            small, large = total // 2, total - total // 2
            begin, end = (small, large) if mode == "SAME_UPPER" else (large, small)
            pads[axis], pads[axis + len(sizes)] = begin, end
    replaced = ("auto_pad", "output_padding", "output_shape", "pads")
    attributes = {name: value.value for name, value in node.attributes.items() if name not in replaced}
    return [op.op("ConvTranspose", *node.inputs, **attributes, output_padding=extra, pads=pads)]


REWRITES: dict[tuple[str, str], Rewrite] = {
    **{("", name): _explicit_padding for name in ("AveragePool", "Conv", "LpPool", "MaxPool")},
    ("", "ConvTranspose"): _explicit_padding_of_transposed,
}
