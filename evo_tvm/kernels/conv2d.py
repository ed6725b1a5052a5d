"""Direct ("spatial pack") convolution over channel-blocked tensors.

The blocked layout NCHWc and the register tile over output pixels follow Georganas et al., "Anatomy of
High-Performance Deep Learning Convolutions on SIMD Architectures" (SC 2018) and NeoCPU (Liu et al., ATC 2019).
"""

from __future__ import annotations

import math

from tvm import te
from tvm.ir import Expr

from evo_tvm.kernels.signed_bytes import centred

#: Most terms added up in one accumulator before the sum is put aside: blocked summation (Higham, "The Accuracy of
#: Floating Point Summation", 1993) keeps the error of a 4,608-term sum near that of a 576-term one.
CHUNK = 576


def conv2d(
    data: te.Tensor,
    weight: te.Tensor,
    oc_blocks: int,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int = 1,
    depth_outer: bool = False,
    signed: bool = False,
) -> te.Tensor:
    """Valid convolution of `data` (padding is part of its shape) with weights in the order in which they are read.

    data: (N, IC/ib, H, W, ib); weight: (tiles, chunks, chunk, KH, KW, step, oc_tile, ob), or with `depth_outer` chunks
    before tiles: a tile is `oc_tile` blocks of output channels, a chunk some steps of a group's input channels, a step
    as many channels as divide ib: with fewer than ib, 24 channels in blocks of 16 are no more than 24 terms.
    Result: (N, oc_blocks, OH, OW, ob), of the dtype of `data`. An NCHW tensor is the case ib = 1. With groups, a tile
    of channels lies within one group.

    Of bytes the result is int32, and a step counts fours of channels, which lie side by side in the weights as dot
    product instructions want them: (..., step, oc_tile, ob, 4). `signed`: of bytes less 128 (`signed_bytes`).

    The stage is "conv". Where there are several chunks it sums "partial" (N, OC/ob, OH, OW, chunks, ob).
    """
    n, _, height, width, _ = (int(e) for e in data.shape)
    _, _, chunk, kh, kw, step, oc_tile, ob, *four = (int(e) for e in weight.shape)
    terms, ib = math.prod(four), int(data.shape[4])
    chunks = int(weight.shape[0 if depth_outer else 1])
    out_h = (height - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    out_w = (width - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    blocks_per_group = oc_blocks // groups
    co, ci = te.reduce_axis((0, chunk), "co"), te.reduce_axis((0, step), "ci")
    r, s = te.reduce_axis((0, kh), "r"), te.reduce_axis((0, kw), "s")
    q = [te.reduce_axis((0, terms), "q")] if four else []
    steps = ib // (step * terms)  # in a block of the input
    dtype = "int32" if four else str(data.dtype)

    def sum_chunk(b: Expr, o: Expr, i: Expr, j: Expr, c: Expr | int, v: Expr) -> Expr:
        first = (o // blocks_per_group) * (chunks * chunk) if groups > 1 else 0
        k = first + c * chunk + co
        lane = ci * terms + q[0] if four else ci
        block, lane = (k, lane) if steps == 1 else (k // steps, k % steps * (step * terms) + lane)
        pixel = data[b, block, i * stride[0] + r * dilation[0], j * stride[1] + s * dilation[1], lane]
        place = (c, o // oc_tile) if depth_outer else (o // oc_tile, c)
        factor = weight[(*place, co, r, s, ci, o % oc_tile, v, *q)]
        return te.sum(centred(pixel, signed).astype(dtype) * factor.astype(dtype), axis=[co, r, s, ci, *q])

    shape = (n, oc_blocks, out_h, out_w)
    if chunks == 1:
        return te.compute((*shape, ob), lambda b, o, i, j, v: sum_chunk(b, o, i, j, 0, v), name="conv")
    partial = te.compute((*shape, chunks, ob), sum_chunk, name="partial")
    k = te.reduce_axis((0, chunks), "k")
    return te.compute((*shape, ob), lambda b, o, i, j, v: te.sum(partial[b, o, i, j, k, v], axis=[k]), name="conv")


def depthwise_conv2d(
    data: te.Tensor, weight: te.Tensor, stride: tuple[int, int], dilation: tuple[int, int]
) -> te.Tensor:
    """Depthwise convolution (channel multiplier 1) of `data`, whose shape includes the padding.

    data: (N, C/b, H, W, b); weight: (C/b, KH, KW, b); result: (N, C/b, OH, OW, b).
    """
    n, blocks, height, width, block = (int(e) for e in data.shape)
    _, kh, kw, _ = (int(e) for e in weight.shape)
    out_h = (height - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    out_w = (width - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    r, s = te.reduce_axis((0, kh), "r"), te.reduce_axis((0, kw), "s")
    return te.compute(
        (n, blocks, out_h, out_w, block),
        lambda b, c, i, j, v: te.sum(
            data[b, c, i * stride[0] + r * dilation[0], j * stride[1] + s * dilation[1], v] * weight[c, r, s, v],
            axis=[r, s],
        ),
        name="depthwise",
    )
