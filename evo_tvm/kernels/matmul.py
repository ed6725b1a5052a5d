"""Matrix products over panels: the right operand's columns in blocks as wide as a vector."""

from __future__ import annotations

from collections.abc import Callable

from tvm import te, tirx
from tvm.ir import Expr

from evo_tvm.kernels.conv2d import CHUNK


def depth_chunk(depth: int) -> int:
    """Terms that one accumulator adds up: all, or the largest divisor of the depth that is at most CHUNK.

    A depth that has only small divisors is added up in one go.
    """
    if depth <= CHUNK * 3 // 2:
        return depth
    chunk = next(c for c in range(CHUNK, 0, -1) if depth % c == 0)
    return chunk if chunk >= CHUNK // 8 else depth


def product(
    shape: tuple[int, ...], depth: int, chunk: int, left: Callable[..., Expr], right: Callable[..., Expr]
) -> te.Tensor:
    """The stage "product" of `shape` (*batch, rows, panels, lanes): sums of `left` times `right` over the depth.

    left: (*batch, row, k) => a factor; right: (*batch, panel, k's chunk, k within it, lane) => the other. Where `chunk`
    is less than `depth` it sums "partial" (*batch, rows, panels, chunks, lanes).
    """
    ki = te.reduce_axis((0, chunk), "ki")

    def sum_chunk(*at: Expr) -> Expr:
        *batch, i, o, c, v = at
        return te.sum(left(*batch, i, c * chunk + ki) * right(*batch, o, c, ki, v), axis=[ki])

    if chunk == depth:
        return te.compute(shape, lambda *at: sum_chunk(*at[:-1], 0, at[-1]), name="product")
    partial = te.compute((*shape[:-1], depth // chunk, shape[-1]), sum_chunk, name="partial")
    ko = te.reduce_axis((0, depth // chunk), "ko")
    return te.compute(shape, lambda *at: te.sum(partial[(*at[:-1], ko, at[-1])], axis=[ko]), name="product")


def matmul(left: te.Tensor, right: te.Tensor, chunk: int, panel_tile: int, lanes: int) -> te.Tensor:
    """left: (*batch, M, K); right: (*batch, K, N); batch extents are equal, or 1; result: (*batch, M, N/lanes, lanes).

    The stage "packed" (*batch, tiles, K, panel_tile, lanes) is the right operand in the order in which it is read; its
    columns are padded up to whole tiles with zeros.
    """
    *left_batch, rows, depth = (int(e) for e in left.shape)
    *right_batch, _, width = (int(e) for e in right.shape)
    panels = -(-width // lanes)

    def pack(*at: Expr) -> Expr:
        *batch, tile, k, t, v = at
        j = (tile * panel_tile + t) * lanes + v
        element = right[(*batch, k, tirx.min(j, width - 1))]
        padded = -(-panels // panel_tile) * panel_tile * lanes
        return element if padded == width else tirx.Select(j < width, element, tirx.const(0, str(right.dtype)))

    packed = te.compute((*right_batch, -(-panels // panel_tile), depth, panel_tile, lanes), pack, name="packed")
    batch = tuple(max(a, b) for a, b in zip(left_batch, right_batch, strict=True))

    def at_batch(index: list[Expr], extents: list[int]) -> list[Expr | int]:
        return [0 if e == 1 else b for b, e in zip(index, extents, strict=True)]

    return product(
        (*batch, rows, panels, lanes),
        depth,
        chunk,
        lambda *at: left[(*at_batch(list(at[:-2]), left_batch), *at[-2:])],
        lambda *at: packed[
            (
                *at_batch(list(at[:-4]), right_batch),
                at[-4] // panel_tile,
                at[-3] * chunk + at[-2],
                at[-4] % panel_tile,
                at[-1],
            )
        ],
    )


def broadcast_batch(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The batch extents of a product of matrices with these shapes, as numpy's matmul broadcasts them."""
    rank = max(len(s) for s in shapes)
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    return tuple(max(extents) for extents in zip(*(s[:-2] for s in padded), strict=True))
