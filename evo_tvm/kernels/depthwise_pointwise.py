"""Depthwise convolution and the 1x1 convolution behind it in one kernel: what lies between them never leaves the cache.

The pair is the "depthwise separable convolution" of MobileNets (Howard et al., 2017) and the end of the inverted
residual of MobileNetV2 (Sandler et al., CVPR 2018). A band of rows of the hidden tensor is computed for all channels,
then multiplied (layer fusion after Alwani et al., "Fused-Layer CNN Accelerators", MICRO 2016; since the second kernel
is 1x1, nothing is computed twice).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import te
from tvm.ir import Expr

from evo_tvm.kernels.conv2d import CHUNK, depthwise_conv2d

#: The value of the hidden tensor from the depthwise sum and its index (n, c, h, w, lane): bias and activation.
Between = Callable[..., Expr]


def pack_pointwise(weight: np.ndarray, ib: int, ob: int, oc_tile: int) -> np.ndarray:
    """(OC, C, 1, 1) -> (tiles, C/ib, ib, oc_tile, ob): the blocks of a tile of output channels side by side."""
    oc, ic = weight.shape[:2]
    tiles, blocks = -(-oc // (ob * oc_tile)), -(-ic // ib)
    padded = np.zeros((tiles * oc_tile * ob, blocks * ib), weight.dtype)
    padded[:oc, :ic] = weight[:, :, 0, 0]
    return np.ascontiguousarray(padded.reshape(tiles, oc_tile, ob, blocks, ib).transpose(0, 3, 4, 1, 2))


def depthwise_pointwise(
    data: te.Tensor,
    depthwise_weight: te.Tensor,
    pointwise_weight: te.Tensor,
    oc_blocks: int,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    between: Between = lambda value, *index: value,
) -> te.Tensor:
    """1x1 convolution of `between` of a depthwise convolution of `data`, whose shape includes the padding.

    data: (N, C/b, H, W, b); depthwise_weight: (C/b, KH, KW, b); pointwise_weight: as `pack_pointwise` gives; result:
    (N, oc_blocks, OH, OW, ob). Lanes that only pad the last block must come out of `between` finite: the pointwise
    weights there are zero.

    Stages: "depthwise" and "hidden" (N, C/b, OH, OW, b), ["partial" (N, oc_blocks, OH, OW, chunks, ob),] "conv". Long
    sums are added up in parts, as the direct convolution's are.
    """
    depthwise = depthwise_conv2d(data, depthwise_weight, stride, dilation)
    hidden = te.compute(depthwise.shape, lambda *index: between(depthwise[index], *index), name="hidden")
    n, ic_blocks, out_h, out_w, ib = (int(e) for e in depthwise.shape)
    _, _, _, oc_tile, ob = (int(e) for e in pointwise_weight.shape)
    chunk = ic_blocks
    if ic_blocks * ib > 2 * CHUNK:
        chunk = next(c for c in range(CHUNK // ib, 0, -1) if ic_blocks % c == 0)
    co, ci = te.reduce_axis((0, chunk), "co"), te.reduce_axis((0, ib), "ci")

    def sum_chunk(b: Expr, o: Expr, i: Expr, j: Expr, c: Expr | int, v: Expr) -> Expr:
        at = c * chunk + co
        return te.sum(hidden[b, at, i, j, ci] * pointwise_weight[o // oc_tile, at, ci, o % oc_tile, v], axis=[co, ci])

    shape, chunks = (n, oc_blocks, out_h, out_w), ic_blocks // chunk
    if chunks == 1:
        return te.compute((*shape, ob), lambda b, o, i, j, v: sum_chunk(b, o, i, j, 0, v), name="conv")
    partial = te.compute((*shape, chunks, ob), sum_chunk, name="partial")
    k = te.reduce_axis((0, chunks), "k")
    return te.compute((*shape, ob), lambda b, o, i, j, v: te.sum(partial[b, o, i, j, k, v], axis=[k]), name="conv")
