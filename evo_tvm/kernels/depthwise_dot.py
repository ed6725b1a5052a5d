"""Depthwise convolution of bytes, four taps of a row at a time: the form that dot product instructions take.

Four pixels of a block of channels, transposed, are the taps of each channel side by side. They serve as many outputs as
find all their taps among them: with three taps two neighbours, whose weights are (w0, w1, w2, 0) and (0, w0, w1, w2).
"""

from __future__ import annotations

import numpy as np
from tvm import te
from tvm.ir import Expr

from evo_tvm.kernels.signed_bytes import centred

#: Taps that one instruction multiplies and adds up.
TERMS = 4


def fours(taps: int) -> int:
    """Groups of four pixels that a row of the window needs."""
    return -(-taps // TERMS)


def shared_by(taps: int, stride: int) -> int:
    """Neighbouring outputs that find all their taps in the same pixels."""
    return (TERMS * fours(taps) - taps) // stride + 1


def columns_read(width: int, taps: int, stride: int) -> int:
    """Columns of the padded input that a row of `width` outputs reads, multiplied by zero or not."""
    share = shared_by(taps, stride)
    return (width - 1) // share * share * stride + TERMS * fours(taps)


def depthwise_dot(
    data: te.Tensor,
    weight: te.Tensor,
    image: tuple[int, int],
    stride: tuple[int, int],
    row_dilation: int,
    signed: bool = False,
) -> te.Tensor:
    """data: (N, C/b, H, W, b) uint8, W at least `columns_read`; weight: as `pack_depthwise_dot` makes it, int8.

    image: (OH, OW); signed: of bytes less 128 (`evo_tvm.kernels.signed_bytes`). Result, the stage "depthwise":
    (N, C/b, OH, OW, b) int32.
    """
    n, blocks, _, _, block = (int(e) for e in data.shape)
    _, share, kh, groups, _, _ = (int(e) for e in weight.shape)
    r, k = te.reduce_axis((0, kh), "r"), te.reduce_axis((0, groups), "k")
    q = te.reduce_axis((0, TERMS), "q")

    def pixel(*at: Expr) -> Expr:
        return centred(data[at], signed).astype("int32")

    return te.compute(
        (n, blocks, *image, block),
        lambda b, c, i, j, v: te.sum(
            pixel(b, c, i * stride[0] + r * row_dilation, j // share * (share * stride[1]) + k * TERMS + q, v)
            * weight[c, j % share, r, k, v, q].astype("int32"),
            axis=[r, k, q],
        ),
        name="depthwise",
    )


def pack_depthwise_dot(data: np.ndarray, block: int, stride: int) -> np.ndarray:
    """(C, 1, KH, KW) int8 => (C/b, outputs that share pixels, KH, fours of taps, b, 4), zeros where a tap is none."""
    channels, _, kh, kw = data.shape
    share, groups = shared_by(kw, stride), fours(kw)
    blocks = -(-channels // block)
    taps = np.zeros((blocks * block, share, kh, TERMS * groups), data.dtype)
    for p in range(share):
        taps[:channels, p, :, p * stride : p * stride + kw] = data[:, 0]
    return taps.reshape(blocks, block, share, kh, groups, TERMS).transpose(0, 2, 3, 4, 1, 5)
