"""Grouped convolution whose groups are not whole vectors of channels, without gathers in the inner loop.

Two ways, after the two ends of cardinality in Xie et al., "Aggregated Residual Transformations for Deep Neural
Networks" (ResNeXt, CVPR 2017):

- windowed: a block of output channels is an ordinary convolution over the channels of each group that it touches, one
  group after the other, with zeros in the weights of the lanes that belong to other groups.
- lanewise: as a depthwise convolution. A stage copies, for each lane of the output, the input channels of its group
  into that lane, once for all taps; then everything is a product of vectors. No multiplication is wasted.
"""

from __future__ import annotations

import numpy as np
from tvm import te, tirx
from tvm.ir import Expr


def groups_touched(block_index: int, oc_group: int, block: int) -> int:
    """Groups, of `oc_group` output channels each, that lie in a block of output channels."""
    return (block_index * block % oc_group + block - 1) // oc_group + 1


def most_groups_touched(oc: int, groups: int, block: int) -> int:
    """The largest number of groups in one block of output channels."""
    return min(groups, max(groups_touched(o, oc // groups, block) for o in range(-(-oc // block))))


def pack_windowed(weight: np.ndarray, groups: int, block: int) -> np.ndarray:
    """(OC, IC/groups, KH, KW) -> (OC/b, groups touched at most, KH, KW, IC/groups, b)."""
    oc, ic_group, kh, kw = weight.shape
    packed = np.zeros(windowed_shape(oc, ic_group, groups, (kh, kw), block), weight.dtype)
    for channel in range(oc):
        o = channel // block
        group = channel // (oc // groups) - o * block // (oc // groups)
        packed[o, group, :, :, :, channel % block] = weight[channel].transpose(1, 2, 0)
    return packed


def windowed_shape(oc: int, ic_group: int, groups: int, kernel: tuple[int, int], block: int) -> tuple[int, ...]:
    """The shape of what `pack_windowed` gives."""
    return (-(-oc // block), most_groups_touched(oc, groups, block), *kernel, ic_group, block)


def windowed_conv2d(
    data: te.Tensor, weight: te.Tensor, oc: int, groups: int, stride: tuple[int, int], dilation: tuple[int, int]
) -> te.Tensor:
    """Valid convolution; each block of output channels reads the groups that it touches. Stage "conv".

    data: (N, IC/ib, H, W, ib), padding included; weight: as `pack_windowed` gives; oc: output channels; result:
    (N, OC/b, OH, OW, b). An infinite or NaN pixel reaches the other groups of its block: 0 times infinity is NaN.

    Where blocks touch different numbers of groups, the reduction over groups ends at a condition marked "likely",
    which the schedule turns into the loop's end.
    """
    n, ic_blocks, height, width, ib = (int(e) for e in data.shape)
    blocks, spans, kh, kw, ic_group, block = (int(e) for e in weight.shape)
    out_h = (height - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    out_w = (width - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    oc_group = oc // groups
    touched = [groups_touched(o, oc_group, block) for o in range(blocks)]
    beyond = ((blocks - 1) * block // oc_group + spans) * ic_group > ic_blocks * ib
    co, ci = te.reduce_axis((0, spans), "co"), te.reduce_axis((0, ic_group), "ci")
    r, s = te.reduce_axis((0, kh), "r"), te.reduce_axis((0, kw), "s")

    def tap(b: Expr, o: Expr, i: Expr, j: Expr, v: Expr) -> Expr:
        c = (o * block // oc_group + co) * ic_group + ci
        if beyond:  # the last block's lanes beyond the last group; their weights are zero
            c = tirx.min(c, ic_blocks * ib - 1)
        pixel = data[b, c // ib, i * stride[0] + r * dilation[0], j * stride[1] + s * dilation[1], c % ib]
        term = pixel * weight[o, co, r, s, ci, v]
        if min(touched) < spans:
            inside = tirx.likely(co < groups_touched(o, oc_group, block))
            term = tirx.if_then_else(inside, term, tirx.const(0, "float32"))
        return te.sum(term, axis=[co, r, s, ci])

    return te.compute((n, blocks, out_h, out_w, block), tap, name="conv")


def pack_lanewise(weight: np.ndarray, block: int) -> np.ndarray:
    """(OC, IC/groups, KH, KW) -> (OC/b, IC/groups, KH, KW, b)."""
    oc, ic_group, kh, kw = weight.shape
    blocks = -(-oc // block)
    packed = np.zeros((blocks * block, ic_group, kh, kw), weight.dtype)
    packed[:oc] = weight
    return np.ascontiguousarray(packed.reshape(blocks, block, ic_group, kh, kw).transpose(0, 2, 3, 4, 1))


def lanewise_conv2d(
    data: te.Tensor, weight: te.Tensor, oc: int, groups: int, stride: tuple[int, int], dilation: tuple[int, int]
) -> te.Tensor:
    """Valid convolution as products of vectors. Stages "lanes" (N, OC/b, IC/groups, H, W, b) and "conv".

    data: (N, IC/ib, H, W, ib), padding included; weight: as `pack_lanewise` gives; oc: output channels;
    result: (N, OC/b, OH, OW, b).
    """
    n, _, height, width, ib = (int(e) for e in data.shape)
    blocks, ic_group, kh, kw, block = (int(e) for e in weight.shape)
    out_h = (height - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    out_w = (width - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    oc_group = oc // groups

    def spread(b: Expr, o: Expr, k: Expr, y: Expr, x: Expr, v: Expr) -> Expr:
        c = (o * block + v) // oc_group * ic_group + k
        if oc % block:  # the lanes beyond the last channel read some channel; their weights are zero
            c = tirx.min(c, groups * ic_group - 1)
        return data[b, c // ib, y, x, c % ib]

    lanes = te.compute((n, blocks, ic_group, height, width, block), spread, name="lanes")
    k = te.reduce_axis((0, ic_group), "k")
    r, s = te.reduce_axis((0, kh), "r"), te.reduce_axis((0, kw), "s")

    def tap(b: Expr, o: Expr, i: Expr, j: Expr, v: Expr) -> Expr:
        pixel = lanes[b, o, k, i * stride[0] + r * dilation[0], j * stride[1] + s * dilation[1], v]
        return te.sum(pixel * weight[o, k, r, s, v], axis=[k, r, s])

    return te.compute((n, blocks, out_h, out_w, block), tap, name="conv")
