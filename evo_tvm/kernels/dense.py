"""Matrix products with weights packed into panels of output channels."""

from __future__ import annotations

from tvm import te


def dense(data: te.Tensor, weight: te.Tensor) -> te.Tensor:
    """data: (M, K); weight: (N/b, K, b), N padded up to whole panels; result: (M, N/b, b)."""
    m, depth = (int(e) for e in data.shape)
    panels, _, block = (int(e) for e in weight.shape)
    k = te.reduce_axis((0, depth), "k")
    return te.compute(
        (m, panels, block), lambda i, o, v: te.sum(data[i, k] * weight[o, k, v], axis=[k]), name="dense"
    )
