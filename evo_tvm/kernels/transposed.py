"""Transposed convolution as one ordinary convolution for each phase of its stride: no products with inserted zeros.

The sub-pixel view of Shi et al., "Is the deconvolution layer the same as a convolutional layer?" (2016): the rows of
the result whose index is the same modulo the stride see the same taps of the kernel, every stride-th one.
"""

from __future__ import annotations

import math

import numpy as np
from tvm import te, tirx
from tvm.ir import Expr

from evo_tvm.kernels.conv2d import CHUNK


def border(
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int],
    out_size: tuple[int, int],
) -> tuple[int, int, int, int]:
    """(top, left, bottom, right): pixels around the image that `transposed_conv2d` reads.

    padding: what is cut off the result at its top and left; out_size: (OH, OW), whatever is cut off at its end or
    added there as output padding.
    """
    before, after = [], []
    for size, k, s, d, cut, out in zip(image, kernel, stride, dilation, padding, out_size, strict=True):
        before.append(max(0, (_most_taps(k, s) - 1) * d - cut // s))
        after.append(max(0, (out - 1 + cut) // s - (size - 1)))
    return before[0], before[1], after[0], after[1]


def pack_transposed(
    weight: np.ndarray, stride: tuple[int, int], padding: tuple[int, int], ib: int, ob: int, oc_tile: int
) -> np.ndarray:
    """(IC, OC, KH, KW) -> (SH, SW, tiles, IC/ib, TH, TW, ib, oc_tile, ob): the taps of each phase, last one first.

    A tile is `oc_tile` blocks of output channels, side by side as the kernel reads them. padding: (top, left).
    """
    ic, oc, kh, kw = weight.shape
    rows, tiles = -(-ic // ib), -(-oc // (ob * oc_tile))
    padded = np.zeros((rows * ib, tiles * oc_tile * ob, kh, kw), weight.dtype)
    padded[:ic, :oc] = weight
    blocked = padded.reshape(rows, ib, tiles, oc_tile, ob, kh, kw).transpose(2, 0, 5, 6, 1, 3, 4)
    taps = tuple(_most_taps(k, s) for k, s in zip((kh, kw), stride, strict=True))
    packed = np.zeros((*stride, tiles, rows, *taps, ib, oc_tile, ob), weight.dtype)
    for y in range(stride[0]):
        for x in range(stride[1]):
            part = blocked[:, :, (y + padding[0]) % stride[0] :: stride[0], (x + padding[1]) % stride[1] :: stride[1]]
            packed[y, x, :, :, : part.shape[2], : part.shape[3]] = part[:, :, ::-1, ::-1]
    return packed


def transposed_conv2d(
    data: te.Tensor,
    weight: te.Tensor,
    oc_blocks: int,
    kernel: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int],
    out_size: tuple[int, int],
) -> te.Tensor:
    """out[y*s + r*d - padding] += data[y] * weight[r], in both directions. Stages ["partial",] "phases", "conv".

    data: (N, IC/ib, H, W, ib), `border` of zeros included; weight: as `pack_transposed` gives; kernel: (KH, KW) before
    packing; dilation: 1 wherever the stride is not; result: (N, oc_blocks, *out_size, ob).

    Phases have different numbers of taps: the loops over them end at conditions marked "likely". Long sums are added up
    in parts, as the direct convolution's are.
    """
    n, ic_blocks, _, _, ib = (int(e) for e in data.shape)
    sh, sw, _, _, th, tw, _, oc_tile, ob = (int(e) for e in weight.shape)
    (kh, kw), first = kernel, []
    for taps, d, cut, s in zip((th, tw), dilation, padding, (sh, sw), strict=True):
        before = max(0, (taps - 1) * d - cut // s)  # the border
        first.append(before - (taps - 1) * d)
    chunk = _chunk(ic_blocks, th * tw * ib)
    co, ci = te.reduce_axis((0, chunk), "co"), te.reduce_axis((0, ib), "ci")
    t, u = te.reduce_axis((0, th), "t"), te.reduce_axis((0, tw), "u")

    def sum_chunk(b: Expr, o: Expr, p: Expr, q: Expr, i: Expr, j: Expr, c: Expr | int, v: Expr) -> Expr:
        late_rows, late_columns = _late(p + padding[0], kh, sh), _late(q + padding[1], kw, sw)
        y = i + (p + padding[0]) // sh + (t + late_rows) * dilation[0] + first[0]
        x = j + (q + padding[1]) // sw + (u + late_columns) * dilation[1] + first[1]
        at = c * chunk + co
        term = data[b, at, y, x, ci] * weight[p, q, o // oc_tile, at, t, u, ci, o % oc_tile, v]
        ends = []
        ends += [tirx.likely(t < th - late_rows)] if kh % sh else []
        ends += [tirx.likely(u < tw - late_columns)] if kw % sw else []
        if ends:
            term = tirx.if_then_else(tirx.all(*ends), term, tirx.const(0, "float32"))
        return te.sum(term, axis=[co, t, u, ci])

    height, width = (-(-e // s) for e, s in zip(out_size, (sh, sw), strict=True))
    shape, chunks = (n, oc_blocks, sh, sw, height, width), ic_blocks // chunk
    if chunks == 1:
        phases = te.compute((*shape, ob), lambda b, o, p, q, i, j, v: sum_chunk(b, o, p, q, i, j, 0, v), name="phases")
    else:
        k = te.reduce_axis((0, chunks), "k")
        partial = te.compute((*shape, chunks, ob), sum_chunk, name="partial")
        phases = te.compute(
            (*shape, ob),
            lambda b, o, p, q, i, j, v: te.sum(partial[b, o, p, q, i, j, k, v], axis=[k]),
            name="phases",
        )
    return te.compute(
        (n, oc_blocks, *out_size, ob),
        lambda b, o, i, j, v: phases[b, o, i % sh, j % sw, i // sh, j // sw, v],
        name="conv",
    )


def _chunk(ic_blocks: int, terms: int) -> int:
    """Blocks of input channels in a partial sum; `terms` is what one block contributes."""
    if ic_blocks * terms <= 2 * CHUNK:
        return ic_blocks
    limit = max(1, CHUNK // terms)
    return next(c for c in range(min(limit, ic_blocks), 0, -1) if ic_blocks % c == 0)


def _most_taps(kernel: int, stride: int) -> int:
    return math.ceil(kernel / stride)


def _late(row: Expr, kernel: int, stride: int) -> Expr | int:
    """1 for a row of the result that misses the last of `_most_taps` taps, else 0."""
    return (row % stride + stride - kernel % stride) // stride if kernel % stride else 0
