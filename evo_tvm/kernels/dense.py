"""Products of a matrix and constant weights."""

from __future__ import annotations

from tvm import te

from evo_tvm.kernels.matmul import product


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
