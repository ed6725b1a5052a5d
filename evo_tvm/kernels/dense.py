"""Products of a matrix and constant weights."""

from __future__ import annotations

from tvm import te, tirx
from tvm.ir import Expr

from evo_tvm.kernels.matmul import product
from evo_tvm.kernels.signed_bytes import centred


def dense(data: te.Tensor, weight: te.Tensor, panels: int) -> te.Tensor:
    """data: (M, K); weight: (tiles, chunks, chunk, panel_tile, lanes) of K by N, in the order in which it is read.

    Result: (M, panels, lanes), `panels` the vectors that N columns fill; see `evo_tvm.kernels.matmul.product`.
    """
    rows, depth = (int(e) for e in data.shape)
    _, _, chunk, panel_tile, lanes = (int(e) for e in weight.shape)
    return product(
        (rows, panels, lanes),
        depth,
        chunk,
        lambda i, k: data[i, k],
        lambda o, c, k, v: weight[o // panel_tile, c, k, o % panel_tile, v],
    )


def dense_dot(data: te.Tensor, weight: te.Tensor, panels: int, signed: bool = False) -> te.Tensor:
    """data: (M, K) uint8; weight: (tiles, 1, steps, panel_tile, lanes, 4) int8: a step is four terms, innermost.

    Result, the stage "product": (M, panels, lanes) int32. A depth that is no multiple of 4 is copied with zeros behind
    it, the stage "whole" (M, 4 * steps). `signed`: of bytes less 128 (`evo_tvm.kernels.signed_bytes`).
    """
    rows, depth = (int(e) for e in data.shape)
    _, _, steps, panel_tile, lanes, terms = (int(e) for e in weight.shape)
    whole = data if depth == steps * terms else _padded(data, steps * terms)
    k, q = te.reduce_axis((0, steps), "k"), te.reduce_axis((0, terms), "q")

    def element(i: Expr, o: Expr, v: Expr) -> Expr:
        factor = weight[o // panel_tile, 0, k, o % panel_tile, v, q]
        return te.sum(centred(whole[i, k * terms + q], signed).astype("int32") * factor.astype("int32"), axis=[k, q])

    return te.compute((rows, panels, lanes), element, name="product")


def _padded(data: te.Tensor, depth: int) -> te.Tensor:
    rows, known = (int(e) for e in data.shape)
    zero = tirx.const(0, str(data.dtype))
    return te.compute((rows, depth), lambda i, k: tirx.if_then_else(k < known, data[i, k], zero), name="whole")
