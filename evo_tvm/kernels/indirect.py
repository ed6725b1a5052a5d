"""Indirect convolution: a table says where each tap of each pixel lies, instead of columns that are copied.

Dukhan, "The Indirect Convolution Algorithm" (2019); the kernels of QNNPACK and XNNPACK work so. Taps in the padding
point to one pixel of zeros, so the image needs no border as wide as a dilated kernel reaches, and the pixels of the
image are one axis, so that tiles do not end at the ends of rows.
"""

from __future__ import annotations

import numpy as np
from tvm import te
from tvm.ir import Expr

from evo_tvm.errors import CompileError
from evo_tvm.kernels.conv2d import CHUNK


def indirection(
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int, int, int],
    border: tuple[int, int, int, int],
) -> np.ndarray:
    """int32 (OH * OW, KH * KW, 2): row and column, in the bordered image, of each tap of each pixel.

    padding: of the convolution, border: zeros around the image as stored, both (top, left, bottom, right). A tap
    outside of the image points to the border's first pixel (0, 0).

    Raises CompileError: a tap lies outside of the image, and there is no border above or left of it.
    """
    inside, places = [], []
    for axis in range(2):
        size, d, before = image[axis], dilation[axis], padding[axis]
        count = (size + before + padding[axis + 2] - d * (kernel[axis] - 1) - 1) // stride[axis] + 1
        at = np.arange(count)[:, None] * stride[axis] + np.arange(kernel[axis])[None, :] * d - before
        inside.append((at >= 0) & (at < size))
        places.append(at + border[axis])
    (rows, columns), (in_row, in_column) = places, inside
    both = in_row[:, None, :, None] & in_column[None, :, None, :]
    if not both.all() and not (border[0] or border[1]):
        raise CompileError(
            "an indirect convolution with padding needs a pixel of zeros before the image",
            where=f"image {image[0]}x{image[1]}, padding {padding}",
            hint="Give the tensor a border of one row above it.",
        )
    y, x = np.broadcast_arrays(rows[:, None, :, None], columns[None, :, None, :])
    table = np.where(both[..., None], np.stack([y, x], axis=-1), 0).astype(np.int32)
    return table.reshape(rows.shape[0] * columns.shape[0], -1, 2)


def pack_indirect(weight: np.ndarray, ib: int, ob: int, oc_tile: int) -> np.ndarray:
    """OIHW -> (tiles, KH * KW, IC/ib, ib, oc_tile, ob): a tile is `oc_tile` blocks of output channels, as read."""
    oc, ic, kh, kw = weight.shape
    tiles, rows = -(-oc // (ob * oc_tile)), -(-ic // ib)
    padded = np.zeros((tiles * oc_tile * ob, rows * ib, kh, kw), weight.dtype)
    padded[:oc, :ic] = weight
    packed = padded.reshape(tiles, oc_tile, ob, rows, ib, kh * kw).transpose(0, 5, 3, 4, 1, 2)
    return np.ascontiguousarray(packed)


def indirect_conv2d(
    data: te.Tensor, table: te.Tensor, weight: te.Tensor, oc_blocks: int, out_size: tuple[int, int]
) -> te.Tensor:
    """Convolution of `data` through `table`.

    data: (N, IC/ib, H, W, ib), its border included; table: as `indirection` gives; weight: as `pack_indirect` gives;
    result: (N, oc_blocks, *out_size, ob).

    Stages: ["partial" (N, oc_blocks, OH * OW, taps, ob),] "gemm" (N, oc_blocks, OH * OW, ob), "conv". Where a result
    has many terms each tap is added up by itself first.
    """
    n, ic_blocks, _, _, ib = (int(e) for e in data.shape)
    _, taps, _, _, oc_tile, ob = (int(e) for e in weight.shape)
    pixels, width = out_size[0] * out_size[1], out_size[1]
    t = te.reduce_axis((0, taps), "t")
    co, ci = te.reduce_axis((0, ic_blocks), "co"), te.reduce_axis((0, ib), "ci")

    def term(b: Expr, o: Expr, p: Expr, tap: Expr, v: Expr) -> Expr:
        return data[b, co, table[p, tap, 0], table[p, tap, 1], ci] * weight[o // oc_tile, tap, co, ci, o % oc_tile, v]

    if taps * ic_blocks * ib <= 2 * CHUNK:
        gemm = te.compute(
            (n, oc_blocks, pixels, ob),
            lambda b, o, p, v: te.sum(term(b, o, p, t, v), axis=[t, co, ci]),
            name="gemm",
        )
    else:
        partial = te.compute(
            (n, oc_blocks, pixels, taps, ob),
            lambda b, o, p, tap, v: te.sum(term(b, o, p, tap, v), axis=[co, ci]),
            name="partial",
        )
        gemm = te.compute(
            (n, oc_blocks, pixels, ob), lambda b, o, p, v: te.sum(partial[b, o, p, t, v], axis=[t]), name="gemm"
        )
    return te.compute((n, oc_blocks, *out_size, ob), lambda b, o, i, j, v: gemm[b, o, i * width + j, v], name="conv")
