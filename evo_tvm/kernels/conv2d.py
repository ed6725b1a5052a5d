"""Direct ("spatial pack") convolution over channel-blocked tensors.

The blocked layout NCHWc and the register tile over output pixels follow Georganas et al., "Anatomy of
High-Performance Deep Learning Convolutions on SIMD Architectures" (SC 2018) and NeoCPU (Liu et al., ATC 2019).
"""

from __future__ import annotations

from tvm import te
from tvm.ir import Expr

#: Terms added up in one accumulator before the sum is put aside: blocked summation (Higham, "The Accuracy of Floating
#: Point Summation", 1993) keeps the error of a 4,608-term sum near that of a 576-term one, for 1 % more instructions.
CHUNK = 576


def conv2d(
    data: te.Tensor,
    weight: te.Tensor,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int = 1,
) -> te.Tensor:
    """Valid convolution of `data` (padding is part of its shape) with packed weights.

    data: (N, IC/ib, H, W, ib); weight: (OC/ob, IC/groups/ib, KH, KW, ib, ob); result: (N, OC/ob, OH, OW, ob), of the
    dtype of `data`. An NCHW tensor is the case ib = 1. With groups, a block of channels lies within one group.

    The stage is "conv". Where a result has many terms it sums "partial" (N, OC/ob, OH, OW, chunks, ob), each over some
    blocks of input channels.
    """
    n, _, height, width, _ = (int(e) for e in data.shape)
    oc_blocks, ic_blocks, kh, kw, ib, ob = (int(e) for e in weight.shape)
    out_h = (height - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    out_w = (width - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    blocks_per_group = oc_blocks // groups
    chunk = _chunk(ic_blocks, kh * kw * ib)
    co, ci = te.reduce_axis((0, chunk), "co"), te.reduce_axis((0, ib), "ci")
    r, s = te.reduce_axis((0, kh), "r"), te.reduce_axis((0, kw), "s")

    def tap(b: Expr, o: Expr, i: Expr, j: Expr, v: Expr, first: Expr | int = 0) -> Expr:
        group = (o // blocks_per_group) * ic_blocks if groups > 1 else 0
        pixel = data[b, group + first + co, i * stride[0] + r * dilation[0], j * stride[1] + s * dilation[1], ci]
        return te.sum(pixel * weight[o, first + co, r, s, ci, v], axis=[co, r, s, ci])

    shape = (n, oc_blocks, out_h, out_w)
    if chunk == ic_blocks:
        return te.compute((*shape, ob), lambda b, o, i, j, v: tap(b, o, i, j, v), name="conv")
    k = te.reduce_axis((0, ic_blocks // chunk), "k")
    partial = te.compute(
        (*shape, ic_blocks // chunk, ob), lambda b, o, i, j, c, v: tap(b, o, i, j, v, c * chunk), name="partial"
    )
    return te.compute((*shape, ob), lambda b, o, i, j, v: te.sum(partial[b, o, i, j, k, v], axis=[k]), name="conv")


def _chunk(ic_blocks: int, terms: int) -> int:
    """Blocks of input channels in a partial sum; `terms` is what one block contributes."""
    if ic_blocks * terms <= 2 * CHUNK:
        return ic_blocks
    limit = max(1, CHUNK // terms)
    return next(c for c in range(min(limit, ic_blocks), 0, -1) if ic_blocks % c == 0)


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
