"""Convolution as a matrix product: a column of the matrix for every pixel, then a register-tiled GEMM.

Chellapilla et al., "High Performance Convolutional Neural Networks for Document Processing" (2006), with columns for a
block of pixels that stays in the second cache, as Dukhan, "The Indirect Convolution Algorithm" (2019) describes what
libraries do. The pixels of the image are one axis, so that tiles do not end at the ends of rows.
"""

from __future__ import annotations

import numpy as np
from tvm import te
from tvm.ir import Expr

from evo_tvm.kernels.conv2d import CHUNK


def pack_im2col(weight: np.ndarray, ib: int, ob: int, oc_tile: int) -> np.ndarray:
    """OIHW -> (tiles, K, oc_tile, ob), K = IC/ib * KH * KW * ib in this order: with ib = 1 no channel is padded.

    A tile is `oc_tile` blocks of output channels, side by side as the kernel reads them.
    """
    oc, ic, kh, kw = weight.shape
    tiles, rows = -(-oc // (ob * oc_tile)), -(-ic // ib)
    padded = np.zeros((tiles * oc_tile * ob, rows * ib, kh, kw), weight.dtype)
    padded[:oc, :ic] = weight
    packed = padded.reshape(tiles, oc_tile, ob, rows, ib, kh, kw).transpose(0, 3, 5, 6, 4, 1, 2)
    return np.ascontiguousarray(packed).reshape(tiles, -1, oc_tile, ob)


def im2col_conv2d(
    data: te.Tensor,
    weight: te.Tensor,
    oc_blocks: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> te.Tensor:
    """Valid convolution of `data` (padding is part of its shape).

    data: (N, IC/ib, H, W, ib); weight: as `pack_im2col` gives; result: (N, oc_blocks, OH, OW, ob).

    Stages: "columns" (N, OH * OW, K), annotated with the elements of a column that lie side by side in `data` ("row");
    ["partial",] "gemm" (N, oc_blocks, OH * OW, ob), "conv". Long sums are added up in parts, as the direct
    convolution's are.
    """
    n, _, height, width, ib = (int(e) for e in data.shape)
    _, depth, oc_tile, ob = (int(e) for e in weight.shape)
    kh, kw = kernel
    out_h = (height - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    out_w = (width - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    pixels = out_h * out_w

    def column(b: Expr, p: Expr, k: Expr) -> Expr:
        y = p // out_w * stride[0] + k // (kw * ib) % kh * dilation[0]
        x = p % out_w * stride[1] + k // ib % kw * dilation[1]
        return data[b, k // (kh * kw * ib), y, x, k % ib]

    row = ib * (kw if dilation[1] == 1 else 1)
    columns = te.compute((n, pixels, depth), column, name="columns", attrs={"row": row})
    chunk = depth if depth <= 2 * CHUNK else next(c for c in range(CHUNK, 0, -1) if depth % c == 0)
    ki, ko = te.reduce_axis((0, chunk), "ki"), te.reduce_axis((0, depth // chunk), "ko")

    def column_term(b: Expr, o: Expr, p: Expr, k: Expr, v: Expr) -> Expr:
        return columns[b, p, k] * weight[o // oc_tile, k, o % oc_tile, v]

    if chunk == depth:
        gemm = te.compute(
            (n, oc_blocks, pixels, ob),
            lambda b, o, p, v: te.sum(column_term(b, o, p, ki, v), axis=[ki]),
            name="gemm",
        )
    else:
        partial = te.compute(
            (n, oc_blocks, pixels, depth // chunk, ob),
            lambda b, o, p, c, v: te.sum(column_term(b, o, p, c * chunk + ki, v), axis=[ki]),
            name="partial",
        )
        gemm = te.compute(
            (n, oc_blocks, pixels, ob),
            lambda b, o, p, v: te.sum(partial[b, o, p, ko, v], axis=[ko]),
            name="gemm",
        )
    return te.compute((n, oc_blocks, out_h, out_w, ob), lambda b, o, i, j, v: gemm[b, o, i * out_w + j, v], name="conv")
