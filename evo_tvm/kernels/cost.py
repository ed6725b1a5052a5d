"""Arithmetic and memory traffic of a kernel, counted from its shapes."""

from __future__ import annotations

import math

import numpy as np

from evo_tvm.kernels.elementwise import EXPRESSIONS
from evo_tvm.kernels.lower_group import LoweredGroup

#: Operators that convert bytes as they read them.
_CONVERTING = frozenset(("avg_pool2d", "global_avg_pool2d", "tir", *EXPRESSIONS))


def computes_in(kernel: LoweredGroup) -> str:
    """What the anchor computes in: "int8" where it reads bytes and does not convert them; else "float32"."""
    anchor = kernel.group.anchor
    read = [kernel.inputs[a].dtype for a in anchor.args[:1] if a < len(kernel.inputs)]
    return "int8" if read and read[0] in ("int8", "uint8") and anchor.kind not in _CONVERTING else "float32"


def flops(kernel: LoweredGroup) -> int:
    """Operations of one call, in whatever it computes: a multiply-add counts two, an elementwise operator one an
    element.

    Logical shapes count: work on channels that only pad a block is not work. TIR functions count as zero.
    """
    group = kernel.group
    out = kernel.outputs[0].size
    per_element = sum(op.kind in EXPRESSIONS for op in group.ops)
    anchor = group.anchor
    shapes = [kernel.inputs[a].shape for a in anchor.args if a < len(kernel.inputs)]
    if anchor.kind in ("conv2d", "depthwise_conv2d"):
        per_element += 2 * math.prod(shapes[1][1:])
    elif anchor.kind == "conv2d_transpose":  # each pixel of the image times the kernel, what is cut off included
        return out * per_element + 2 * math.prod(shapes[0]) * math.prod(shapes[1][1:])
    elif anchor.kind == "depthwise_pointwise":
        channels, taps = shapes[1][0], math.prod(shapes[1][2:])
        hidden = out // kernel.outputs[0].shape[1] * channels
        per_element += 2 * channels
        return out * per_element + hidden * (2 * taps + len(anchor.attrs["between"]))
    elif anchor.kind == "dense":
        per_element += 2 * shapes[1][0]
    elif anchor.kind == "matmul":
        per_element += 2 * anchor.attrs["left_shape"][-1]
    elif anchor.kind in ("max_pool2d", "avg_pool2d"):
        per_element += math.prod(anchor.attrs["pool_size"])
    elif anchor.kind == "global_avg_pool2d":
        per_element += math.prod(shapes[0][2:])
    return out * per_element


def moved_bytes(kernel: LoweredGroup) -> int:
    """Bytes of all parameters, each counted once: what a call moves at least."""
    total, dtypes = 0, {v.name: v.dtype for v in kernel.inputs}
    for parameter in kernel.parameters:
        if parameter.view is not None:
            total += math.prod(parameter.view.shape) * np.dtype(parameter.view.dtype).itemsize
        elif parameter.data is not None:
            total += parameter.data.nbytes
        elif parameter.packing is not None:
            total += math.prod(parameter.packing.shape) * np.dtype(dtypes[parameter.name]).itemsize
    return total
